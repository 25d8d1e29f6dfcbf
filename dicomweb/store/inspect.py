"""Look at one delivered file: is it whole, is it an instance, does it fit its SOP class (DICOM PS3.18 Annex I).

Pure functions over bytes.
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import IO

from pydicom import Dataset
from pydicom.uid import UID

from dicomweb.instance_check import FailureReason, RejectedInstanceError, parse_instance
from dicomweb.instance_header import InstanceHeader, header_of, text_of
from dicomweb.store.beginning import Beginning, read_beginning
from dicomweb.store.raw_elements import tag_at
from dicomweb.store.report import Remark, WarningReason
from dicomweb.store.structure import check_structure

_DIRECTORY = "1.2.840.10008.1.3.10"
_PIXELS = tuple(map(tag_at, (0x7FE00010, 0x7FE00008, 0x7FE00009)))
"""Pixel Data, Float Pixel Data, Double Float Pixel Data."""
_PATIENT_ID = tag_at(0x00100020)
HEAD_BYTES = 32 * 1024
"""The beginning of a file that is looked at first: of nearly all slices it holds everything but the pixels."""
Inspected = tuple[InstanceHeader, Remark | None]


def inspect_head(head: bytes, size: int) -> Inspected | None:
    """Look at a file of native pixel data by its beginning: that they are whole, its size says.

    Parameters
    ----------
    head : the first bytes of the file
    size : of the whole file in bytes

    Returns
    -------
    What `inspect` finds in the whole file; None: that has to be looked at.

    Raises
    ------
    RejectedInstanceError
        It is not stored.
    """
    beginning = read_beginning(head, size)
    return None if beginning is None else _of(parse_instance(BytesIO(head), beginning.dataset), beginning)


def inspect(body: IO[bytes]) -> Inspected:
    """Parse a file wholly.

    Returns
    -------
    What the index keeps of it, and why it is stored with a warning, if it is.

    Raises
    ------
    RejectedInstanceError
        It is not stored.
    """
    content = body.getvalue() if isinstance(body, BytesIO) else b""
    known = read_beginning(content, len(content))
    if known is not None:
        return _of(parse_instance(body, known.dataset), known)
    check_structure(body)  # before pydicom follows what it nests
    return _of(parse_instance(body))


def _of(dataset: Dataset, beginning: Beginning | None = None) -> Inspected:
    sop_class = UID(text_of(dataset, "SOPClassUID"))
    if not _is_stored(sop_class):
        reason, names = FailureReason.SOP_CLASS_NOT_SUPPORTED, (str(sop_class), text_of(dataset, "SOPInstanceUID"))
        raise RejectedInstanceError(reason, "The SOP class is not one of stored instances", *names)
    has_pixel_data = any(tag in dataset for tag in _PIXELS)
    remark = None if _fits(dataset, sop_class, has_pixel_data) else Remark(WarningReason.DOES_NOT_MATCH_SOP_CLASS)
    try:
        if beginning is not None:
            return beginning.header(has_pixel_data=has_pixel_data), remark
        for tag in _PIXELS:
            if tag in dataset:
                del dataset[tag]
        return header_of(dataset, has_pixel_data=has_pixel_data), remark
    except Exception as exc:
        # What parses and yet cannot be described cannot be found again: it is the sender's data that are broken.
        names = (str(sop_class), text_of(dataset, "SOPInstanceUID"))
        raise RejectedInstanceError(FailureReason.CANNOT_UNDERSTAND, "The header is malformed", *names) from exc


def _fits(dataset: Dataset, sop_class: UID, has_pixel_data: bool) -> bool:
    """Whether the attributes every instance of the class must have (type 1, or 2 for the patient's) are there."""
    has_modality = bool(text_of(dataset, "Modality"))
    return has_modality and _PATIENT_ID in dataset and (has_pixel_data or not _is_image(sop_class))


@lru_cache(maxsize=256)
def _is_stored(sop_class: str) -> bool:
    """Whether instances of a class are stored: one that is not known may be."""
    uid = UID(sop_class)
    return uid != _DIRECTORY and (uid.type != "SOP Class" or "Storage" in uid.name)


@lru_cache(maxsize=256)
def _is_image(sop_class: str) -> bool:
    return "Image Storage" in UID(sop_class).name
