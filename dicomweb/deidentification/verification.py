"""An independent look at a result: do values of the original stand in it? Shares no code with the de-identifier.

It knows the original's values, writes them in the character sets that are met here, and searches every byte of the
result; what is too short to be searched in bytes is compared with every whole value. PS3.15 E.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from io import BytesIO

from pydicom import Dataset, dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement

_CODECS = ("utf-8", "gb18030", "latin-1", "iso8859-5", "shift_jis", "euc_kr", "utf-16-le", "utf-16-be")
_IDENTIFYING_VRS = frozenset({"PN", "LO", "SH", "AE", "UC", "ST", "LT", "UT"})
_IDENTIFYING = frozenset(
    (  # noqa: SIM905  a list of words
        "AccessionNumber AdmissionID CountryOfResidence CurrentPatientLocation DetectorID DeviceSerialNumber "
        "FillerOrderNumberImagingServiceRequest GantryID InstitutionAddress InstitutionName "
        "InstitutionalDepartmentName IssuerOfPatientID MedicalRecordLocator MilitaryRank OccupationOfPatient "
        "OtherPatientIDs OtherPatientNames PatientAddress PatientBirthName PatientComments PatientID "
        "PatientInsurancePlanCodeSequence PatientMotherBirthName PatientName PatientReligiousPreference "
        "PatientTelephoneNumbers PerformedLocation PerformedStationName "
        "PlacerOrderNumberImagingServiceRequest PlateID ReferringPhysicianAddress "
        "ReferringPhysicianTelephoneNumbers RegionOfResidence RequestedProcedureID RequestingPhysician "
        "RequestingService RetrieveAETitle ScheduledProcedureStepID ScheduledStationName ServiceEpisodeID "
        "StationName StudyID "
    ).split()
)
_COMMON = {
    "NONE",
    "UNKNOWN",
    "OTHER",
    "SYNTHETIC",
    "ANONYMOUS",
    "PHANTOM",
    "TEST",
    "HOSPITAL",
    "PATIENT",
    "SPINE",
    "LUMBAR",
}
_BYTES_LEAST, _BYTES_LEAST_NUMBER = 6, 6
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Survivor:
    """A value of the original that stands in the result: its attribute, and where it stands. Never the value."""

    attribute: str
    where: str


def verify(
    original: Dataset, result: bytes, *, shift_days: int | None, device_identity: bool = False, uids_kept: bool = False
) -> list[Survivor]:
    """Search a result, as it lies in the file, for what identifies in its original.

    Parameters
    ----------
    shift_days : by which dates were moved; a moved date may be the same day as another of the original

    Returns
    -------
    Nothing, when all is well.
    """
    written = dcmread(BytesIO(result), force=True)
    ranges = _pixel_ranges(written, result)
    found: list[Survivor] = []
    whole = {text.strip().casefold(): path for path, text in _texts(written) if text.strip()}
    kept = _device_attributes() if device_identity else frozenset()
    for attribute, value in sorted(set(_identifying(original, kept))):
        place = whole.get(value.casefold())
        if place is not None:
            found.append(Survivor(attribute, place))
        elif len(value.encode()) >= _BYTES_LEAST:
            where = _in_bytes(value, result, ranges)
            if where:
                found.append(Survivor(attribute, where))
    if not uids_kept:
        found += [Survivor("UID", "bytes") for uid in _uids(original) if _stands(uid, result)]
    found += [Survivor(name, "bytes") for name, day in _days(original, shift_days) if _stands(day, result, ranges)]
    return found


def _identifying(dataset: Dataset, kept: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Names and numbers of persons, places and devices, whole and (names) in parts."""
    for element in _elements(dataset):
        keyword = keyword_for_tag(element.tag)
        if element.VR not in _IDENTIFYING_VRS or keyword in kept:
            continue
        if element.VR != "PN" and keyword not in _IDENTIFYING:
            continue
        values = element.value if element.VM > 1 and not isinstance(element.value, str) else [element.value]
        for value in values:
            text = str(value or "").strip()
            parts = [text, *(re.split(r"[\^=\s]+", text) if element.VR == "PN" else ())]
            for part in parts:
                if len(part) >= (4 if part.isascii() else 2) and part.upper() not in _COMMON:
                    yield keyword, part


def _device_attributes() -> frozenset[str]:
    return frozenset(
        {
            "DeviceSerialNumber",
            "StationName",
            "DetectorID",
            "GantryID",
            "PlateID",
            "PerformedStationName",
            "ScheduledStationName",
        }
    )


def _elements(dataset: Dataset) -> Iterator[DataElement]:
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
            items = list(element.value) if element.VR == "SQ" else []
        except Exception:  # noqa: BLE001, S112  a value that cannot be read in the original
            continue
        yield element
        for item in items:
            yield from _elements(item)


def _texts(dataset: Dataset) -> Iterator[tuple[str, str]]:
    for element in _elements(dataset):
        if element.VR in ("SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN", "UI"):
            continue
        values = element.value if element.VM > 1 and not isinstance(element.value, str) else [element.value]
        for value in values:
            if isinstance(value, str) or element.VR in ("PN", "DS", "IS"):
                yield keyword_for_tag(element.tag) or str(element.tag), str(value)


def _uids(dataset: Dataset) -> set[str]:
    found = set()
    for element in _elements(dataset):
        if element.VR == "UI":
            values = element.value if element.VM > 1 else [element.value]
            found |= {str(value) for value in values if value}
    return {uid for uid in found if not uid.startswith("1.2.840.10008.") and len(uid) >= 8}


def _days(dataset: Dataset, shift_days: int | None) -> set[tuple[str, str]]:
    """Original dates; not those that the original has twice as far apart as the dates were moved."""
    days = {}
    for element in _elements(dataset):
        if element.VR in ("DA", "DT"):
            values = element.value if element.VM > 1 and not isinstance(element.value, str) else [element.value]
            for value in values:
                match = re.match(r"(\d{4})(\d\d)(\d\d)", str(value or ""))
                if match and not match[0].startswith("0000"):
                    days[match[0]] = keyword_for_tag(element.tag)
    moved = set()
    for day in days:
        try:
            there = date(int(day[:4]), int(day[4:6]), int(day[6:8])) + timedelta(days=shift_days or 0)
            moved.add(there.strftime("%Y%m%d"))
        except (ValueError, OverflowError):
            continue
    return {(name, day) for day, name in days.items() if day not in moved and day not in ("19000101",)}


def _in_bytes(value: str, content: bytes, pixels: list[tuple[int, int]]) -> str:
    """Where a value stands in any of the character sets; empty: nowhere."""
    for codec in _CODECS:
        try:
            wanted = value.encode(codec)
        except UnicodeEncodeError:
            continue
        if _DIGITS.fullmatch(value) and len(value) < 12:
            if len(value) >= _BYTES_LEAST_NUMBER and codec == "utf-8" and _stands(value, content, pixels):
                return "bytes"
            continue
        at = content.find(wanted)
        if at >= 0:
            return "pixel data" if any(low <= at < high for low, high in pixels) else "bytes"
    return ""


def _stands(text: str, content: bytes, pixels: list[tuple[int, int]] = ()) -> bool:  # type: ignore[assignment]
    """Whether digits stand alone, not as a part of a longer number or UID; by chance they do in pixels."""
    for match in re.finditer(rb"(?<![0-9.])" + re.escape(text.encode()) + rb"(?![0-9.])", content):
        if not any(low <= match.start() < high for low, high in pixels):
            return True
    return False


def _pixel_ranges(written: Dataset, content: bytes) -> list[tuple[int, int]]:
    """Where pixel data lies in the file."""
    if "PixelData" not in written:
        return []
    pixels = bytes(written.PixelData)
    at = content.find(pixels[:64]) if pixels else -1
    return [(at, at + len(pixels))] if at >= 0 else []
