"""C-FIND, C-GET and C-MOVE identifiers ↔ QIDO-RS parameters and answers. Pure functions.

DICOM PS3.4 §C.4 (attributes of identifiers), §C.6 (Patient and Study Root), §C.2.2.2 (matching); PS3.18 §8.3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.datadict import keyword_for_tag, tag_for_keyword

from foramen.kernel.errors import InvalidRequestError

LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")
UNIQUE = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
_NOT_KEYS = frozenset(
    ("SpecificCharacterSet", "QueryRetrieveLevel", "TimezoneOffsetFromUTC", "RetrieveAETitle", "InstanceAvailability")
)
_OF_PATIENT = frozenset(
    ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "OtherPatientIDs")
)
_CHINESE = ("GB18030", "GBK")
UTF_8 = "ISO_IR 192"
_MOST_KEYS = 2000


class IdentifierError(InvalidRequestError):
    """The identifier does not match the SOP class (status A900H)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What an identifier asks for.

    Parameters
    ----------
    level : one of `LEVELS`
    matching : (keyword, value) as QIDO-RS takes them
    wanted : keywords to be returned
    ignored : keys with values that nothing can be matched on here (private or nested ones)
    charset : Specific Character Set of the answers that are not plain ASCII
    """

    level: str
    matching: tuple[tuple[str, str], ...]
    wanted: tuple[str, ...]
    ignored: tuple[str, ...]
    charset: str


def asked(identifier: Dataset, root: str) -> Asked:
    """Read the identifier of a C-FIND.

    Parameters
    ----------
    root : first level of the information model, "PATIENT" or "STUDY"

    Raises
    ------
    IdentifierError
        No level, one that the model has not, or a unique key of a level above without one value (PS3.4 §C.4.1.3.1).
    """
    level = level_of(identifier, root)
    if len(identifier) > _MOST_KEYS:
        raise IdentifierError(f"More than {_MOST_KEYS} keys")
    for above in LEVELS[LEVELS.index(root) : LEVELS.index(level)]:
        _require_one(identifier, UNIQUE[above])
    matching: list[tuple[str, str]] = []
    wanted: list[str] = []
    ignored: list[str] = []
    for tag in identifier.keys():  # noqa: SIM118  a Dataset iterates over elements
        keyword = keyword_for_tag(tag)
        if keyword in _NOT_KEYS or tag.element == 0:
            continue
        element = _element(identifier, tag)
        if not keyword or element.VR == "SQ":
            if _has_value(element):
                ignored.append(keyword or f"{tag:08X}")
            continue
        if level == "PATIENT" and keyword not in _OF_PATIENT:
            continue
        wanted.append(keyword)
        value = key_text(element)
        if value.strip("*") or (value and set(value) != {"*"}):
            matching.append((keyword, value))
    return Asked(level, tuple(matching), tuple(wanted), tuple(ignored), charset_for(identifier))


def level_of(identifier: Dataset, root: str) -> str:
    """Return the Query/Retrieve Level (0008,0052).

    Raises
    ------
    IdentifierError
        There is none, or none that the model has.
    """
    level = str(identifier.get("QueryRetrieveLevel") or "").strip()
    if level not in LEVELS[LEVELS.index(root) :]:
        raise IdentifierError("Query/Retrieve Level is missing or is none of this information model")
    return level


def unique_keys(identifier: Dataset, root: str) -> tuple[str, dict[str, list[str]]]:
    """Read the identifier of a C-GET or C-MOVE: level, and the values of the unique keys down to it.

    Raises
    ------
    IdentifierError
        A unique key is missing, or one above the level is a list (PS3.4 §C.4.2.2.1, §C.4.3.2.1).
    """
    level = level_of(identifier, root)
    keys: dict[str, list[str]] = {}
    for name in LEVELS[LEVELS.index(root) : LEVELS.index(level) + 1]:
        if name != level:
            _require_one(identifier, UNIQUE[name])
        values = [part for part in key_text(identifier.get(UNIQUE[name])).split("\\") if part]
        if not values or any("*" in value or "?" in value for value in values):
            raise IdentifierError(f"{UNIQUE[name]} is missing or is no exact value")
        if name == "PATIENT" and len(values) > 1:
            raise IdentifierError("PatientID must be one value")
        keys[name] = values
    return level, keys


def charset_for(identifier: Dataset) -> str:
    """Return GB18030 (or GBK) when the request is written in it, else UTF-8."""
    values = identifier.get("SpecificCharacterSet") or ()
    names = [values] if isinstance(values, str) else list(values)
    return next((name for name in _CHINESE if name in names), UTF_8)


def answer(model: dict[str, Any], query: Asked, ae_title: str) -> Dataset:
    """Turn one QIDO result (DICOM JSON) into a C-FIND identifier with what was asked for, and nothing else."""
    tags = [f"{tag_for_keyword(keyword) or 0:08X}" for keyword in query.wanted]
    found = Dataset.from_json({tag: model[tag] for tag in tags if tag in model})
    found.QueryRetrieveLevel = query.level
    found.RetrieveAETitle = ae_title
    if query.level != "PATIENT":
        found.InstanceAvailability = "ONLINE"
    return with_charset(found, query.charset)


def with_charset(found: Dataset, charset: str) -> Dataset:
    """Say in which character set the text is written; nothing for plain ASCII."""
    if not all(_text(element).isascii() for element in found.iterall()):
        found.SpecificCharacterSet = charset
    return found


def key_text(element: Any) -> str:
    """Value of a key as text, several ones joined by a backslash; "" when it has none."""
    value = element.value if isinstance(element, DataElement) else element
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return "\\".join(str(part).strip() for part in value)
    return str(value).strip()


def _element(identifier: Dataset, tag: Any) -> DataElement:
    try:
        return identifier[tag]
    except Exception as exc:
        raise IdentifierError("A key of the identifier cannot be read") from exc


def _has_value(element: DataElement) -> bool:
    if element.VR != "SQ":
        return bool(key_text(element))
    return any(_has_value(inner) for item in element.value for inner in item)


def _require_one(identifier: Dataset, keyword: str) -> None:
    value = key_text(identifier.get(keyword))
    if not value or "\\" in value or "*" in value or "?" in value:
        raise IdentifierError(f"{keyword} must have one value here")


def _text(element: DataElement) -> str:
    return key_text(element) if element.VR in ("PN", "LO", "SH", "LT", "ST", "UT", "UC") else ""
