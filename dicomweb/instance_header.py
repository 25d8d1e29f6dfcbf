"""Stages 1 and 3: what the study index keeps of one instance, taken from its file once, at intake.

DICOM PS3.18 §10.6.3 (attributes by level), §F.2 (DICOM JSON model); PS3.10 (file format).
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import IO, Any

import orjson
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag, Tag

from dicomweb.dicom_json import dicom_json
from dicomweb.index.levels import Level, level_of
from dicomweb.store.raw_elements import tag_at
from foramen.kernel.dicom_text import mend_escape_sequences
from foramen.kernel.errors import InvalidResourceError

mend_escape_sequences()

STUDY_KEYWORDS = (
    *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "TimezoneOffsetFromUTC"),
    *("StudyDescription", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyID"),
)
SERIES_KEYWORDS = ("Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber")
INSTANCE_KEYWORDS = ("SOPClassUID", "SOPInstanceUID", "InstanceNumber")
"""Attributes that a level has even when the file lacks them: empty. All others it has when the file does."""
LONGEST_INDEXED_BYTES = 8192
"""A longer value (functional groups of many frames) is in the metadata alone, not in the search."""
BULK_THRESHOLD_BYTES = 1024
PIXEL_DATA, AVAILABLE_SYNTAX = "7FE00010", "00083002"
_BULK_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
OWN_MANUFACTURER = "Foramen"
_PLAIN_TEXT = re.compile(rb"[A-Za-z0-9 .-]+\0?")
_TEXT_VRS = frozenset((None, "CS", "IS", "LO", "SH", "UI"))
_NAMING = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_NAMELESS = "A UID that names the instance is missing"
_OWN_MODALITIES = frozenset(("SEG", "SR", "PR", "KO", "REG"))


class MalformedInstanceError(InvalidResourceError):
    """The bytes are not a DICOM instance we can index."""


@dataclass(frozen=True, slots=True)
class InstanceHeader:
    """Everything the index keeps of one instance."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: int | None
    frames: int
    own_output: bool
    study: dict[str, Any]
    series: dict[str, Any]
    instance: dict[str, Any]
    metadata: bytes


def is_own_output(modality: str, manufacturer: str) -> bool:
    """Whether a series is what this system derived and published itself: such a series never starts a run (loop guard).

    Images are never own output, whatever their manufacturer says: an input must not be able to hide itself.
    """
    return modality in _OWN_MODALITIES and manufacturer.strip().casefold().startswith(OWN_MANUFACTURER.casefold())


def tag_of(keyword: str) -> str:
    """Eight hexadecimal digits of an attribute, as the JSON model writes them."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return f"{tag:08X}"


def read_header(content: bytes | IO[bytes]) -> InstanceHeader:
    """Read the header of one DICOM file, given whole or opened.

    Raises
    ------
    MalformedInstanceError
        Not DICOM, or without the UIDs that name it.
    """
    try:
        file = BytesIO(content) if isinstance(content, bytes) else content
        dataset = dcmread(file, stop_before_pixels=True)
    except Exception as exc:
        # Whatever pydicom raises here is a fault of the sender's bytes, never of ours.
        raise MalformedInstanceError("Not a readable DICOM file") from exc
    return header_of(dataset, has_pixel_data="Rows" in dataset)


def header_of(dataset: Dataset, *, has_pixel_data: bool) -> InstanceHeader:
    """Take the header of a parsed dataset with file meta information.

    Raises
    ------
    MalformedInstanceError
        Without the UIDs that name it.
    """
    syntax = dataset.file_meta.get(_tag("TransferSyntaxUID"))
    if syntax is None:
        raise MalformedInstanceError(_NAMELESS)
    transfer_syntax = str(syntax.value)
    path = path_of(*(text_of(dataset, f"{name}InstanceUID") for name in ("Study", "Series", "SOP")))
    model = json_model(dataset, path)
    if has_pixel_data:
        model[PIXEL_DATA] = pixel_attribute(path)
    model[AVAILABLE_SYNTAX] = syntax_attribute(transfer_syntax)
    return header_with(dataset, levels_of(model), json_text(model), has_pixel_data=has_pixel_data)


def header_with(
    dataset: Dataset, levels: dict[Level, dict[str, Any]], metadata: bytes, *, has_pixel_data: bool
) -> InstanceHeader:
    """Put together a header of which the DICOM JSON is made already.

    Parameters
    ----------
    dataset : with file meta information, and at least what is asked for here
    metadata : DICOM JSON of the whole instance, keys in order

    Raises
    ------
    MalformedInstanceError
        Without the UIDs that name it.
    """
    study, series, instance, sop_class = (text_of(dataset, keyword) for keyword in _NAMING)
    if not all((study, series, instance, sop_class)):
        raise MalformedInstanceError(_NAMELESS)
    return InstanceHeader(
        study_instance_uid=study,
        series_instance_uid=series,
        sop_instance_uid=instance,
        sop_class_uid=sop_class,
        transfer_syntax_uid=str(dataset.file_meta[_tag("TransferSyntaxUID")].value),
        instance_number=_integer(dataset, "InstanceNumber"),
        frames=(_integer(dataset, "NumberOfFrames") or 1) if has_pixel_data else 0,
        own_output=is_own_output(text_of(dataset, "Modality"), text_of(dataset, "Manufacturer")),
        study=levels["study"],
        series=levels["series"],
        instance=levels["instance"],
        metadata=zlib.compress(metadata, 1),
    )


def path_of(study: str, series: str, instance: str) -> str:
    """Where an instance is, relative to our base."""
    return f"studies/{study}/series/{series}/instances/{instance}"


def pixel_attribute(path: str) -> dict[str, Any]:
    """Pixel data in the DICOM JSON: where they are."""
    return {"vr": "OW", "BulkDataURI": f"{path}/bulkdata/{PIXEL_DATA}"}


def syntax_attribute(transfer_syntax_uid: str) -> dict[str, Any]:
    """Available Transfer Syntax UID, PS3.18 Table 10.6.3-5."""
    return {"vr": "UI", "Value": [transfer_syntax_uid]}


def json_model(dataset: Dataset, uri: str) -> dict[str, Any]:
    """DICOM JSON model of a dataset; binary values over 1 KiB become BulkDataURIs below `uri`, relative to our base."""
    paths: dict[int, str] = {}

    def bulk_uri(element: DataElement) -> str:
        if not paths:  # most instances have no such value, and to look for them decodes everything
            paths.update(_bulk_paths(dataset, ""))
        return f"{uri}/bulkdata/{paths[id(element)]}"

    model = dicom_json(dataset, bulk_uri, BULK_THRESHOLD_BYTES)
    if "00080005" in model:
        model["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}  # JSON is UTF-8 (PS3.18 §F.2)
    return model


def _bulk_paths(dataset: Dataset, prefix: str) -> Iterator[tuple[int, str]]:
    """Identity → path ("tag" or "tag/item/tag…", items from 1) of every binary element, nested ones too."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception:  # noqa: BLE001, S112  what cannot be decoded is left out of the model too
            continue
        name = f"{prefix}{tag:08X}"
        if element.VR == "SQ":
            for number, item in enumerate(element.value, start=1):
                yield from _bulk_paths(item, f"{name}/{number}/")
        elif element.VR in _BULK_VRS:
            yield id(element), name


def bulk_value(dataset: Dataset, path: str) -> bytes | None:
    """Value of the element at a path as `_bulk_paths` writes it; None when there is none."""
    parts = path.split("/")
    current = dataset
    try:
        for tag, item in zip(parts[:-1:2], parts[1::2], strict=True):
            current = current[int(tag, 16)].value[int(item) - 1]
        element = current[int(parts[-1], 16)]
    except (KeyError, ValueError, IndexError, TypeError, AttributeError):
        return None
    return bytes(element.value) if element.VR in _BULK_VRS or "O" in element.VR else None


def text_values(attribute: dict[str, Any]) -> list[str]:
    """Values of one JSON-model attribute as text to match on; a name gives each of its component groups."""
    texts: list[str] = []
    for value in attribute.get("Value", ()):
        if isinstance(value, dict):
            texts += [str(group) for group in value.values() if isinstance(group, str)]
        elif value is not None:
            texts.append(str(value))
    return texts


def levels_of(model: dict[str, Any]) -> dict[Level, dict[str, Any]]:
    """Divide the DICOM JSON of an instance into its levels, as the index keeps them: no binary and no huge values."""
    found = empty_levels()
    for tag, attribute in model.items():
        if (kept := kept_in_index(attribute)) is not None:
            found[level_of(tag)][tag] = kept
    return found


def kept_in_index(attribute: dict[str, Any]) -> dict[str, Any] | None:
    """One attribute of the DICOM JSON as the index keeps it; None: it does not."""
    if "BulkDataURI" in attribute or "InlineBinary" in attribute:
        return None
    try:
        text = orjson.dumps(attribute)
    except TypeError:  # number types of pydicom's, which jsonb knows no more than orjson does
        text = orjson.dumps(attribute, default=_plain)
        attribute = orjson.loads(text)
    if len(text) > LONGEST_INDEXED_BYTES:
        return None
    kept: dict[str, Any] = _without_nul(attribute) if b"u0000" in text else attribute
    return kept


def json_text(attributes: dict[str, Any]) -> bytes:
    """DICOM JSON as it is kept: keys in order."""
    return orjson.dumps(attributes, option=orjson.OPT_SORT_KEYS, default=_plain)


def empty_levels() -> dict[Level, dict[str, Any]]:
    """Levels with what each has even when the file lacks it."""
    return {level: dict(attributes) for level, attributes in _EMPTY_LEVELS.items()}


def _empty(keywords: tuple[str, ...]) -> dict[str, Any]:
    return {tag_of(keyword): {"vr": dictionary_VR(keyword)} for keyword in keywords}


_EMPTY_LEVELS: dict[Level, dict[str, Any]] = {
    "study": _empty(STUDY_KEYWORDS),
    "series": _empty(SERIES_KEYWORDS),
    "instance": _empty(INSTANCE_KEYWORDS),
}


def _without_nul(value: Any) -> Any:
    """Drop NUL, which some devices pad with and jsonb refuses: one odd text must not keep a study out of the index."""
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_nul(item) for key, item in value.items()}
    return value


def _plain(value: Any) -> Any:
    """JSON form of pydicom's number types, which orjson does not know."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)


def text_of(dataset: Dataset, keyword: str) -> str:
    """Text of an attribute, without its padding; empty where there is none, or none that can be decoded."""
    raw = dataset.get_item(_tag(keyword))
    if raw is None:
        return ""
    if isinstance(raw, RawDataElement) and raw.value and raw.VR in _TEXT_VRS and _PLAIN_TEXT.fullmatch(raw.value):
        text: str = raw.value.decode("ascii")  # any character set reads it like this
        return text.replace("\0", "").strip()
    try:
        value = dataset.get(keyword)
    except Exception:  # noqa: BLE001  pydicom raises many kinds for one broken value; absent is the honest reading
        return ""
    return "" if value is None else str(value).replace("\0", "").strip()


@lru_cache(maxsize=256)
def _tag(keyword: str) -> BaseTag:
    """Tag of a keyword; pydicom takes some microseconds each time it is given a keyword."""
    return tag_at(Tag(keyword))


def _integer(dataset: Dataset, keyword: str) -> int | None:
    try:
        number = int(text_of(dataset, keyword))
    except ValueError:
        return None
    return number if -(2**31) <= number < 2**31 else None  # IS, PS3.5 Table 6.2-1
