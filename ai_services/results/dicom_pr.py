"""Prediction → key images: Grayscale Softcopy Presentation States that mark the graded discs (stage 5).

DICOM PS3.3 A.33.1, C.10.5 (graphic annotation), C.10.7 (layers), C.11.8 (softcopy VOI LUT). One object a key image; the
layers can be switched off one by one. The pixels are not touched: nothing of the AI is burnt in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom import PresentationLUTTransformation
from highdicom.color import CIELabColor
from highdicom.pr import (
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GrayscaleSoftcopyPresentationState,
    SoftcopyVOILUTTransformation,
    TextObject,
)
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ai_services.prediction import Prediction
from ai_services.results.algorithm_equipment import algorithm_equipment
from ai_services.results.context import MANUFACTURER, RunContext
from ai_services.results.dicom_seg import software_versions
from ai_services.results.dicom_source import copy_issuer, source_headers
from ai_services.results.dicom_times import fix_times
from ai_services.results.key_image_layout import LINE_SHARE, Mark, lay_out
from ai_services.results.key_image_text import notice_text
from ai_services.results.key_slice import KeySlice, key_slices
from ai_services.results.tracking import segment_tracking

KEY_IMAGE_SERIES_NUMBER = 9003
SERIES_DESCRIPTION = "AI key images (unverified)"
_OUTLINES = GraphicLayer("AI_OUTLINES", 1, "Outlines of discs, AI, unverified", CIELabColor(82.0, -38.0, -22.0))
_LABELS = GraphicLayer("AI_LABELS", 2, "Level, grade and confidence, AI, unverified", CIELabColor(88.0, 4.0, 52.0))
_NOTICE = GraphicLayer("AI_NOTICE", 3, "Who says so", CIELabColor(88.0, 4.0, 52.0))
_WINDOW_PERCENTILES = (0.5, 99.0)
_WHOLE_RANGE = 0.95


def build_key_images(prediction: Prediction, datasets: Sequence[Dataset], context: RunContext) -> list[Dataset]:
    """Build one presentation state a key image; the first shows most discs, none where no disc was graded.

    Parameters
    ----------
    prediction : findings and mask
    datasets : the source instances, any order; with pixel data, a window is found where the images bring none
    context : of the run
    """
    sources = source_headers(prediction, datasets)
    keys = key_slices(prediction)
    return [_key_image(number, key, sources[key.index], prediction, context) for number, key in enumerate(keys, 1)]


def _key_image(number: int, key: KeySlice, source: Dataset, prediction: Prediction, context: RunContext) -> Dataset:
    marks = lay_out(prediction, key)
    inverse = source.get("PhotometricInterpretation") == "MONOCHROME1"
    dataset = GrayscaleSoftcopyPresentationState(
        referenced_images=[source],
        series_instance_uid=context.uid("key-image-series"),
        series_number=KEY_IMAGE_SERIES_NUMBER,
        sop_instance_uid=context.uid(f"key-image-{number}"),
        instance_number=number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=context.pipeline,
        software_versions=context.pipeline,
        device_serial_number=prediction.models[0].sha256[:16],
        content_label="AI_KEY_IMAGE",
        content_description=SERIES_DESCRIPTION,
        graphic_layers=[_OUTLINES, _LABELS, _NOTICE],
        graphic_annotations=_annotations(marks, source, prediction, context),
        voi_lut_transformations=_window(source, prediction.mask[key.index]),
        # PS3.3 C.11.6: what the image says of its polarity does not count here, the shape alone does.
        presentation_lut_transformation=PresentationLUTTransformation("INVERSE" if inverse else "IDENTITY"),
        contributing_equipment=algorithm_equipment(prediction.models),
        series_description=SERIES_DESCRIPTION,
    )
    dataset.SoftwareVersions = software_versions(prediction.models)
    # With the part of the body named, no reader asks for its side (PS3.3 C.7.3.1: Laterality, paired structures only).
    dataset.BodyPartExamined = source.get("BodyPartExamined") or "LSPINE"
    copy_issuer(source, dataset)
    fix_times(dataset, context.recorded_at)
    return dataset


def _annotations(
    marks: Sequence[Mark], source: Dataset, prediction: Prediction, context: RunContext
) -> list[GraphicAnnotation]:
    outlines, labels = [], []
    for mark in marks:
        tracking_id, tracking_uid = segment_tracking(mark.segment, context)
        tracked = {"tracking_id": tracking_id, "tracking_uid": tracking_uid}
        outlines.append(GraphicObject("POLYLINE", np.round(mark.path, 2), "PIXEL", **tracked))
        justified = "RIGHT" if mark.text_on_left else "LEFT"
        box = tuple(round(value, 2) for value in mark.box)
        anchor = (round(mark.anchor[0], 2), round(mark.anchor[1], 2))
        labels.append(
            TextObject(
                mark.text.replace("\n", "\r\n"),
                "PIXEL",
                bounding_box=box,
                anchor_point=anchor,
                text_justification=justified,
                **tracked,
            )
        )
    notice = notice_text(prediction, context)
    height = (notice.count("\n") + 1) * LINE_SHARE * 1.15
    box = (0.015, 0.985 - height, 0.7, 0.985)
    notices = [TextObject(notice.replace("\n", "\r\n"), "DISPLAY", bounding_box=box, text_justification="LEFT")]
    return [
        GraphicAnnotation([source], _OUTLINES, graphic_objects=outlines),
        GraphicAnnotation([source], _LABELS, text_objects=labels),
        GraphicAnnotation([source], _NOTICE, text_objects=notices),
    ]


def _window(source: Dataset, section: NDArray[np.uint8]) -> list[SoftcopyVOILUTTransformation] | None:
    """A window of the spine where the image brings none, or one that is no choice of anybody; None: the image's own.

    Parameters
    ----------
    source : image, with pixel data unless its own window is to be taken
    section : mask of the slice, shape (row, column)
    """
    if source.get("VOILUTSequence") or "PixelData" not in source:
        return None
    values = source.pixel_array * float(source.get("RescaleSlope") or 1) + float(source.get("RescaleIntercept") or 0)
    if _is_chosen(source, float(np.ptp(values))):
        return None
    rows, columns = np.nonzero(section)
    spine = values[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    low, high = (float(value) for value in np.percentile(spine, _WINDOW_PERCENTILES))
    width = max(round(high - low), 1)
    return [SoftcopyVOILUTTransformation(window_center=float(round((low + high) / 2)), window_width=float(width))]


def _is_chosen(source: Dataset, value_range: float) -> bool:
    """Whether the image's window is narrower than all its values: converters write the whole range."""
    widths = source.get("WindowWidth")
    if widths in (None, "") or source.get("WindowCenter") in (None, ""):
        return False
    first = widths[0] if hasattr(widths, "__getitem__") else widths
    return float(first) < _WHOLE_RANGE * value_range
