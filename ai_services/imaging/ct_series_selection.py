"""Which CT series of a study the lumbar CT pipeline can read, and why it cannot read the others (stage 4).

A pure function of DICOM attributes (PS3.3 C.7.3.1, C.7.6.2, C.8.2.1). What is not known to be lumbar is declined.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from ai_services.imaging.geometry import image_orientation, is_enhanced
from ai_services.imaging.header_values import image_type, number_of
from ai_services.imaging.series_selection import SeriesSelection, best_of, is_computed, is_lumbar

CT_IMAGE_STORAGE = {"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"}


def select_ct_series(series: Sequence[Sequence[Dataset]]) -> SeriesSelection:
    """Choose the CT series of the lumbar spine with the thinnest slices, then the finest pixels, then the lower UID.

    Parameters
    ----------
    series : for each series its instances (headers suffice)
    """
    return best_of(series, reason_to_decline_ct, _rank, "no-ct-images")


def reason_to_decline_ct(dataset: Dataset) -> str | None:
    """Reason code from one image's header, or None where the series may be read."""
    sop_class = str(dataset.get("SOPClassUID", ""))
    if str(dataset.get("Modality", "")) != "CT" or (sop_class and sop_class not in CT_IMAGE_STORAGE):
        return "not-ct-image"
    if not is_lumbar(dataset):
        return "not-lumbar-ct"
    if "LOCALIZER" in image_type(dataset):
        return "localizer"
    if is_computed(dataset):
        return "derived-series"
    if is_enhanced(dataset):
        return "enhanced-multi-frame"
    if image_orientation(dataset) is None or dataset.get("PixelSpacing") is None:
        return "geometry-missing"
    return None


def _rank(instances: Sequence[Dataset]) -> tuple[float, ...]:
    first = instances[0]
    return (
        round(number_of(first, "SliceThickness"), 2),
        round(float(first.PixelSpacing[0]), 2),
        -float(len(instances)),
    )
