"""Prediction → every DICOM object of a run, in the order in which they are stored (stage 5).

What is referenced comes before what refers to it: SEG, presentation states, SR (the root that names them all), key
object selection. IHE AI Results: one tree, tied by tracking UIDs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from ai_services.prediction import Prediction
from ai_services.results.context import RunContext
from ai_services.results.dicom_ko import build_key_objects
from ai_services.results.dicom_pr import build_key_images
from ai_services.results.dicom_seg import build_segmentation
from ai_services.results.dicom_sr import build_structured_report
from ai_services.results.key_slice import key_slices


@dataclass(frozen=True, slots=True)
class ResultObject:
    """One object of a run, as others refer to it."""

    kind: str
    sop_instance_uid: str


def build_objects(prediction: Prediction, datasets: Sequence[Dataset], context: RunContext) -> list[Dataset]:
    """Build all objects of a run.

    Parameters
    ----------
    prediction : of the pipeline
    datasets : the source instances, any order, with pixel data
    context : of the run
    """
    segmentation = build_segmentation(prediction, datasets, context)
    states = build_key_images(prediction, datasets, context)
    report = build_structured_report(prediction, datasets, segmentation, context, states)
    if not states:
        return [segmentation, report]
    return [segmentation, *states, report, build_key_objects(prediction, datasets, states, report, context)]


def result_objects(prediction: Prediction, context: RunContext) -> list[ResultObject]:
    """Name the objects that `build_objects` makes, without making them."""
    count = len(key_slices(prediction))
    states = [ResultObject("PR", context.uid(f"key-image-{number}")) for number in range(1, count + 1)]
    notes = [ResultObject("KO", context.uid("key-objects"))] if count else []
    return [
        ResultObject("SEG", context.uid("seg")),
        *states,
        ResultObject("SR", context.uid("sr")),
        *notes,
    ]
