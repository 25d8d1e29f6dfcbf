"""Times of derived objects: the time of the run, not of the moment the bytes were written (stage 5).

DICOM PS3.3 C.12.1 (SOP Common), C.7.3.1 (General Series), C.11.10 (Presentation State): a replay must write
the same object.
"""

from __future__ import annotations

from datetime import datetime

from pydicom.dataset import Dataset

_DATES = ("InstanceCreationDate", "ContentDate", "SeriesDate", "PresentationCreationDate")
_TIMES = ("InstanceCreationTime", "ContentTime", "SeriesTime", "PresentationCreationTime")


def fix_times(dataset: Dataset, at: datetime) -> None:
    """Set every creation time of the object to `at` (aware, written in its own time zone)."""
    for keyword in _DATES:
        if keyword in dataset:
            setattr(dataset, keyword, at.strftime("%Y%m%d"))
    for keyword in _TIMES:
        if keyword in dataset:
            setattr(dataset, keyword, at.strftime("%H%M%S.%f"))
    for item in dataset.get("ContributingEquipmentSequence", []):
        if "ContributionDateTime" in item:
            item.ContributionDateTime = at.strftime("%Y%m%d%H%M%S.%f")
    dataset.TimezoneOffsetFromUTC = at.strftime("%z")
