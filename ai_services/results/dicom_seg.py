"""Prediction → DICOM Segmentation, binary, one segment a structure (stage 5).

DICOM PS3.3 A.51, C.8.20.2; highdicom writes it, everything random or of the moment is replaced by the run's own values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset

from ai_services.prediction import ModelIdentity, Prediction, Segment
from ai_services.results.algorithm_equipment import algorithm_equipment
from ai_services.results.context import MANUFACTURER, RunContext
from ai_services.results.dicom_codes import ALGORITHM_FAMILY, ANATOMICAL_STRUCTURE, region_code, structure_code
from ai_services.results.dicom_source import copy_issuer, source_headers
from ai_services.results.dicom_times import fix_times
from ai_services.results.tracking import segment_tracking

SEGMENTATION_SERIES_NUMBER = 9001
SERIES_DESCRIPTION = "AI segmentation (unverified)"


def build_segmentation(prediction: Prediction, datasets: Sequence[Dataset], context: RunContext) -> Dataset:
    """Build the SEG object of a prediction.

    Parameters
    ----------
    prediction : mask of shape (slice, row, column) in the grid of the source images
    datasets : the source instances, any order
    context : of the run; gives series and instance UID

    Returns
    -------
    the data set with its file meta information; frames without content are left out

    Raises
    ------
    ValueError
        The mask is empty, or segment numbers do not run from 1.
    """
    numbers = [segment.number for segment in prediction.segments]
    if numbers != list(range(1, len(numbers) + 1)):
        raise ValueError("segment numbers must run from 1 without gaps (PS3.3 C.8.20.4)")
    if not np.any(prediction.mask):
        raise ValueError("there is nothing to segment in the mask")
    sources = source_headers(prediction, datasets)
    dataset = Segmentation(
        source_images=sources,
        pixel_array=prediction.mask,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(segment, prediction.models, context) for segment in prediction.segments],
        series_instance_uid=context.uid("seg-series"),
        series_number=SEGMENTATION_SERIES_NUMBER,
        sop_instance_uid=context.uid("seg"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=context.pipeline,
        software_versions=context.pipeline,
        device_serial_number=prediction.models[0].sha256[:16],
        content_description=SERIES_DESCRIPTION,
        content_label="AI_SEGMENTATION",
        omit_empty_frames=True,
        contributing_equipment=algorithm_equipment(prediction.models),
        series_description=SERIES_DESCRIPTION,
    )
    dataset.SoftwareVersions = software_versions(prediction.models)
    _fix_dimension_organization(dataset, context)
    copy_issuer(sources[0], dataset)
    fix_times(dataset, context.recorded_at)
    return dataset


def _describe(segment: Segment, models: Sequence[ModelIdentity], context: RunContext) -> SegmentDescription:
    model = models[0]
    tracking_id, tracking_uid = segment_tracking(segment, context)
    return SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.name[:64],
        segmented_property_category=ANATOMICAL_STRUCTURE,
        segmented_property_type=structure_code(segment),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=model.name, family=ALGORITHM_FAMILY, version=model.version, source=MANUFACTURER
        ),
        anatomic_regions=[region_code(segment.level)],
        tracking_uid=tracking_uid,
        tracking_id=tracking_id,
    )


def software_versions(models: Sequence[ModelIdentity]) -> list[str]:
    """Software Versions (0018,1020): every model that took part."""
    return [f"{model.name} {model.version}"[:64] for model in models]


def _fix_dimension_organization(dataset: Dataset, context: RunContext) -> None:
    """Replace the random Dimension Organization UID (PS3.3 C.7.6.17), so that a replay gives the same bytes."""
    uid = context.uid("seg-dimensions")
    sequences: list[Any] = [dataset.DimensionOrganizationSequence, dataset.DimensionIndexSequence]
    for sequence in sequences:
        for item in sequence:
            item.DimensionOrganizationUID = uid
