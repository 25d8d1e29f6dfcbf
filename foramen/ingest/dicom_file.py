"""Read a DICOM file as vendors write them: what is wrong and can only mean one thing is mended, and named.

DICOM PS3.10 §7.1 (preamble, File Meta Information), PS3.5 §7.1 (even lengths), §6.2 (VR), PS3.6 (whose VR is which).
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import VR

from dicomweb.instance_check import RejectedInstanceError, parse_instance
from foramen.ingest.character_set import TEXT_VRS, mend_character_set
from foramen.ingest.described import IMPLEMENTATION_CLASS_UID
from foramen.kernel.errors import InvalidRequestError

_NAMING = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_TEXT = TEXT_VRS | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"}
_VRS = frozenset(map(str, VR))
_MOST_INFLATED = 1024**3
_DEEPEST = 32
_NOT_DICOM = "not a DICOM file"


@dataclass(frozen=True, slots=True)
class DicomFile:
    """One instance as it is to be sent, and what had to be mended; nothing mended means the file's own bytes."""

    content: bytes
    dataset: Dataset
    mended: tuple[str, ...] = ()


def read_dicom(content: bytes) -> DicomFile:
    """Read one file wholly.

    Raises
    ------
    InvalidRequestError
        Not DICOM, truncated, a bomb, or wrong in a way that can mean several things. Never echoes a value.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what pydicom warns of is either mended here, with a word, or harmless
        try:
            dataset, mended = _opened(content)
            mended += mend_character_set(dataset)
            mended += sorted(set(_mend_elements(dataset, 0)))
        except InvalidRequestError:
            raise
        except Exception as exc:
            # Whatever pydicom raises here is a fault of the sender's bytes, never of ours.
            raise InvalidRequestError("Not a readable DICOM file") from exc
        if mended:
            content = _written(dataset)
        try:
            return DicomFile(content, parse_instance(BytesIO(content)), tuple(mended))
        except RejectedInstanceError as error:
            raise InvalidRequestError(error.text) from error


def _opened(content: bytes) -> tuple[Dataset, list[str]]:
    has_preamble = content[128:132] == b"DICM"
    starts_with_meta = content[:4] == b"\x02\x00\x00\x00" or content[:4] == b"DICM"
    if not has_preamble and not starts_with_meta and not _may_be_dataset(content):
        raise InvalidRequestError(_NOT_DICOM)
    _refuse_inflation(content)
    source = content[4:] if content[:4] == b"DICM" else content
    dataset = dcmread(BytesIO(source), force=True)
    if not all(UID(_plain(dataset, keyword)).is_valid for keyword in _NAMING):
        raise InvalidRequestError("A UID that names the instance is missing" if has_preamble else _NOT_DICOM)
    if has_preamble:
        return dataset, _mend_meta(dataset)
    mended = ["the file has no preamble"] if starts_with_meta else ["the file has no preamble and no meta header"]
    return dataset, mended + (_mend_meta(dataset) if starts_with_meta else _new_meta(dataset))


def _plain(dataset: Dataset, keyword: str) -> str:
    """Return a UID without turning its element into what it may be mended from."""
    raw = dataset.get_item(keyword)
    value = raw.value if raw is not None else b""
    return value.decode("latin-1").rstrip("\0 ") if isinstance(value, bytes) else str(value or "")


def _may_be_dataset(content: bytes) -> bool:
    """Whether bytes begin with an element of group 0008, as a dataset without any header does."""
    return (
        len(content) > 8
        and content[:2] == b"\x08\x00"
        and content[3] == 0
        and content[2] in (0, 1, 5, 6, 8, 0x10, 0x12)
    )


def _refuse_inflation(content: bytes) -> None:
    """Refuse a deflated dataset that grows beyond any image (PS3.5 Annex A.5)."""
    head = content[:1024]
    at = head.find(str(DeflatedExplicitVRLittleEndian).encode())
    if at < 0 or content[128:132] != b"DICM":
        return
    length_at = 132 + 8
    start = length_at + 4 + int.from_bytes(content[length_at : length_at + 4], "little")
    inflater, grown, data = zlib.decompressobj(-zlib.MAX_WBITS), 0, content[start:]
    try:
        while data and not inflater.eof:
            grown += len(inflater.decompress(data, 1024 * 1024))
            data = inflater.unconsumed_tail
            if grown > _MOST_INFLATED:
                raise InvalidRequestError("The dataset inflates to more than 1 GiB")
    except zlib.error:
        return  # not deflated after all: the reader says so


def _mend_meta(dataset: Dataset) -> list[str]:
    """Give file meta information what it must say; Orthanc and others read the naming UIDs there."""
    meta = dataset.file_meta
    if "TransferSyntaxUID" not in meta:
        return _new_meta(dataset)
    mended = []
    for keyword, of in (("MediaStorageSOPClassUID", "SOPClassUID"), ("MediaStorageSOPInstanceUID", "SOPInstanceUID")):
        if of in dataset and str(meta.get(keyword, "")) != str(dataset.get(of)):
            setattr(meta, keyword, dataset.get(of))
            mended.append(f"{keyword} of the meta header is missing or not that of the dataset")
    return mended


def _new_meta(dataset: Dataset) -> list[str]:
    implicit, little = dataset.original_encoding
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = (
        ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    )
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    dataset.file_meta = meta
    return [f"no transfer syntax is stated: taken to be {meta.TransferSyntaxUID.name}"]


def _written(dataset: Dataset) -> bytes:
    target = BytesIO()
    dataset.preamble = bytes(128)
    try:
        dcmwrite(target, dataset, enforce_file_format=True)
    except Exception as exc:
        # A value that cannot be written again could not be read rightly either.
        raise InvalidRequestError("The file cannot be mended") from exc
    return target.getvalue()


def _mend_elements(dataset: Dataset, depth: int) -> Iterator[str]:
    """Pad odd values and set right VRs, in items too; gives what was done by keyword of the attribute."""
    if depth > _DEEPEST:
        raise InvalidRequestError(f"Sequences lie deeper than {_DEEPEST} levels")
    for element in list(dataset.values()):
        if isinstance(element, RawDataElement):
            yield from _mend_raw(dataset, element)
        if _is_sequence(element):
            value = dataset[element.tag].value
            for item in value if isinstance(value, list) or hasattr(value, "__iter__") else ():
                if isinstance(item, Dataset):
                    yield from _mend_elements(item, depth + 1)


def _is_sequence(element: RawDataElement | DataElement) -> bool:
    implicit = element.VR is None and dictionary_has_tag(element.tag) and dictionary_VR(element.tag) == "SQ"
    return element.VR == "SQ" or implicit


def _mend_raw(dataset: Dataset, raw: RawDataElement) -> Iterator[str]:
    name = keyword_for_tag(raw.tag) or f"({raw.tag.group:04X},{raw.tag.element:04X})"
    stated = raw.VR
    right = dictionary_VR(raw.tag) if dictionary_has_tag(raw.tag) and not raw.tag.is_private else None
    value = raw.value if isinstance(raw.value, bytes) else b""
    if stated is not None and right is not None and stated not in right.split(" or ") and stated not in ("UN", "SQ"):
        mended = _with_vr(raw, right, value)
        if mended is not None:
            dataset[raw.tag] = mended
            yield f"{name} has the VR {_shown(stated)}, which is {right}"
            return
    if len(value) % 2:
        pad = b" " if (stated or right) in _TEXT - {"UI"} else b"\x00"
        dataset[raw.tag] = raw._replace(value=value + pad, length=len(value) + 1)
        yield f"{name} has an odd length"


def _shown(vr: str) -> str:
    return vr if vr in _VRS else "that does not exist"


def _with_vr(raw: RawDataElement, right: str, value: bytes) -> RawDataElement | None:
    """Return the element with the VR of the dictionary; None: its value cannot be said in it."""
    vr = right.split(" or ")[0]
    text_now = raw.VR in _TEXT or raw.VR not in _VRS
    if vr in _TEXT and text_now:
        pad = b"" if len(value) % 2 == 0 else b"\x00" if vr == "UI" else b" "
        return raw._replace(VR=vr, value=value + pad, length=len(value) + len(pad))
    sizes = {"US": 2, "SS": 2, "UL": 4, "SL": 4}
    if vr in sizes and raw.VR in sizes and value and len(value) % sizes[raw.VR] == 0:
        order = "little" if raw.is_little_endian else "big"
        step = sizes[raw.VR]
        signed = raw.VR in ("SS", "SL")
        numbers = [int.from_bytes(value[at : at + step], order, signed=signed) for at in range(0, len(value), step)]  # type: ignore[arg-type]
        try:
            data = b"".join(number.to_bytes(sizes[vr], order, signed=vr in ("SS", "SL")) for number in numbers)  # type: ignore[arg-type]
        except OverflowError:
            return None
        return raw._replace(VR=vr, value=data, length=len(data))
    return None
