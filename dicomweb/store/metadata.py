"""Instances that come as metadata and bulk data: put together into DICOM files (DICOM PS3.18 §10.5.1.4, §8.7.3, F.2).

Metadata is DICOM JSON or the Native DICOM Model in XML; bulk data are further parts, found by their Content-Location.
Pure functions over what was received.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from typing import Any
from urllib.parse import urljoin

import orjson
from pydicom import Dataset, dcmwrite
from pydicom.charset import convert_encodings
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicomweb.instance_check import SUPPORTED, FailureReason, RejectedInstanceError
from dicomweb.multipart import Part
from dicomweb.store.native_xml import MalformedModelError, from_xml
from dicomweb.store.pixel_payload import SYNTAX_OF, describe, is_transformed, transformed
from dicomweb.store.receive import DICOM_JSON
from dicomweb.store.report import Remark, WarningReason
from foramen.kernel.errors import InvalidRequestError

_PIXEL_DATA = "7FE00010"
_UTF8 = "ISO_IR 192"
_NAMES = ("00080016", "00080018")

Model = dict[str, Any]
Bulk = Mapping[str, Sequence[Part]]


def models_of(parts: Sequence[Part], kind: str) -> tuple[list[Model], dict[str, list[Part]]]:
    """Divide the parts into the metadata of the instances and the bulk data by location.

    Raises
    ------
    InvalidRequestError
        The metadata cannot be read, or there is none.
    """
    models: list[Model] = []
    bulk: dict[str, list[Part]] = {}
    for part in parts:
        if part.media_type == kind:
            models += _read(part.content, kind)
        elif location := part.headers.get("content-location", "").strip():
            bulk.setdefault(location, []).append(part)
        else:
            raise InvalidRequestError("A part of bulk data has no Content-Location", issue_code="required")
    if not models:
        raise InvalidRequestError("The body holds no metadata of an instance", issue_code="required")
    return models, bulk


def _read(content: bytes, kind: str) -> list[Model]:
    try:
        found = orjson.loads(content) if kind == DICOM_JSON else [from_xml(content)]
    except (orjson.JSONDecodeError, MalformedModelError) as exc:
        raise InvalidRequestError("The metadata cannot be read", issue_code="structure") from exc
    found = found if isinstance(found, list) else [found]
    if not all(isinstance(model, dict) for model in found):
        raise InvalidRequestError("The metadata is not an array of data sets", issue_code="structure")
    return found


def assemble(model: Model, bulk: Bulk, base: str) -> tuple[bytes, Remark | None]:
    """Make the DICOM file of one instance.

    Parameters
    ----------
    model : DICOM JSON model
    bulk : parts by Content-Location
    base : URL relative locations are resolved against

    Returns
    -------
    The file, and why it is stored with a warning, if it is.

    Raises
    ------
    RejectedInstanceError
        The metadata is no instance, or bulk data it refers to was not sent.
    """
    names = _text(model, _NAMES[0]), _text(model, _NAMES[1])
    kept = {tag: item for tag, item in model.items() if not tag.startswith("0002")}
    pixels = _pixel_parts(kept.pop(_PIXEL_DATA, None), bulk, base, names)
    try:
        dataset = Dataset.from_json(kept, lambda _tag, _vr, uri: _found(uri, bulk, base)[0].content)
        syntax = _add_pixels(dataset, model.get(_PIXEL_DATA), pixels)
    except RejectedInstanceError as error:
        raise RejectedInstanceError(error.reason, error.text, *names) from error
    except Exception as exc:
        # Whatever pydicom raises here is a fault of the sender's metadata, never of ours.
        raise RejectedInstanceError(FailureReason.CANNOT_UNDERSTAND, "The metadata is malformed", *names) from exc
    remark = _in_readable_characters(dataset)
    if remark is None and len(kept) + (_PIXEL_DATA in model) < len(model):
        remark = Remark(WarningReason.ELEMENTS_DISCARDED)
    try:
        return _file(dataset, syntax), remark
    except Exception as exc:
        raise RejectedInstanceError(FailureReason.CANNOT_UNDERSTAND, "The metadata cannot be encoded", *names) from exc


def _text(model: Model, tag: str) -> str:
    attribute = model.get(tag)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    text = values[0] if isinstance(values, list) and values else ""
    return text if isinstance(text, str) and UID(text).is_valid else ""


def _found(uri: str, bulk: Bulk, base: str) -> Sequence[Part]:
    if uri in bulk:
        return bulk[uri]
    wanted = urljoin(f"{base}/", uri)
    for location, parts in bulk.items():
        if urljoin(f"{base}/", location) == wanted:
            return parts
    raise RejectedInstanceError(FailureReason.CANNOT_UNDERSTAND, "Bulk data that is referred to was not sent")


def _pixel_parts(attribute: Any, bulk: Bulk, base: str, names: tuple[str, str]) -> Sequence[Part]:
    uri = attribute.get("BulkDataURI") if isinstance(attribute, dict) else None
    if not isinstance(uri, str):
        return ()
    try:
        return _found(uri, bulk, base)
    except RejectedInstanceError as error:
        raise RejectedInstanceError(error.reason, error.text, *names) from error


def _add_pixels(dataset: Dataset, attribute: Any, parts: Sequence[Part]) -> str:
    """Set the pixel data from its parts; returns the transfer syntax of the file."""
    if not parts:
        if isinstance(attribute, dict) and "InlineBinary" in attribute:
            dataset.update(Dataset.from_json({_PIXEL_DATA: attribute}))
        return str(ExplicitVRLittleEndian)
    frames, media_type = [part.content for part in parts], parts[0].media_type
    if is_transformed(media_type):
        transformed(dataset, frames)
        return str(ExplicitVRLittleEndian)
    syntax = parts[0].transfer_syntax or SYNTAX_OF.get(media_type, str(ExplicitVRLittleEndian))
    if syntax not in SUPPORTED:
        raise RejectedInstanceError(FailureReason.TRANSFER_SYNTAX_NOT_SUPPORTED, "The transfer syntax is not supported")
    if not UID(syntax).is_encapsulated:
        if syntax != str(ExplicitVRLittleEndian) and parts[0].transfer_syntax:
            reason = FailureReason.TRANSFER_SYNTAX_NOT_SUPPORTED
            raise RejectedInstanceError(reason, "Uncompressed bulk data is Explicit VR Little Endian")
        content = b"".join(frames)
        dataset.add_new(0x7FE00010, "OW", content + b"\0" * (len(content) % 2))
        return syntax
    describe(dataset, frames[0], media_type)
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    return syntax


def _in_readable_characters(dataset: Dataset) -> Remark | None:
    """See that what is written can be read again: text that its character set cannot hold is written as UTF-8."""
    named = dataset.get("SpecificCharacterSet")
    if named == _UTF8 or _fits(dataset):
        return None
    dataset.add_new("SpecificCharacterSet", "CS", _UTF8)  # anew: the one that was named may have any VR
    item: Model = {
        "04000550": {"vr": "SQ", "Value": [{"00080005": {"vr": "CS", **({"Value": [str(named)]} if named else {})}}]},
        "04000562": {"vr": "DT", "Value": [_now()]},
        "04000563": {"vr": "LO", "Value": ["FORAMEN"]},
        "04000564": {"vr": "LO"},
        "04000565": {"vr": "CS", "Value": ["COERCE"]},
    }
    before = dataset.get("OriginalAttributesSequence") or []
    dataset.OriginalAttributesSequence = [*before, Dataset.from_json(item)]
    return Remark(WarningReason.COERCED, (item,))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y%m%d%H%M%S+0000")


def _fits(dataset: Dataset) -> bool:
    """Whether every text can be written in the character set that the metadata names."""
    try:
        encodings = convert_encodings(dataset.get("SpecificCharacterSet"))
    except (LookupError, ValueError, TypeError):  # also a character set that is no text
        return False
    for element in dataset.iterall():
        if element.VR in ("LO", "LT", "PN", "SH", "ST", "UC", "UT"):
            values = element.value if element.VM > 1 else [element.value]
            if not all(value is None or any(_encodes(str(value), one) for one in encodings) for value in values):
                return False
    return True


def _encodes(text: str, encoding: str) -> bool:
    try:
        text.encode("ascii" if encoding == "iso8859" else encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _file(dataset: Dataset, syntax: str) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta = meta
    target = BytesIO()
    dcmwrite(target, dataset, enforce_file_format=True)
    return target.getvalue()
