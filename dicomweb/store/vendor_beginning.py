"""The beginning of a file that is not of the plainest kind, read by pydicom up to its pixel data. Pure.

Most devices write sequences of undefined length, private attributes without a VR and the like. What such elements are
is pydicom's to say; but where native pixel data of known length end the file, nothing beyond their beginning decides.
DICOM PS3.5 §7.1, §7.5.
"""

from __future__ import annotations

from io import BytesIO

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomweb.store.plain_file import VRS, after_meta, tag_at, value_at

_PIXEL_DATA = 0x7FE00010
_NATIVE_VRS = (b"OB", b"OW")


def is_native(content: bytes) -> bool:
    """Whether a file says that it is little endian and neither compressed nor deflated: asked before all else."""
    return content[128:132] == b"DICM" and after_meta(content)[1] in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


def read_up_to_pixels(content: bytes, size: int) -> Dataset | None:
    """Return the data set of a file by its beginning, its pixel data as `read_plain` gives them.

    Parameters
    ----------
    content : the file's first bytes
    size : of the whole file in bytes

    Returns
    -------
    None: it is not native and little endian, or what is beyond its beginning is more than its pixel data.
    """
    if not is_native(content):
        return None
    file = BytesIO(content)
    try:
        dataset = read_partial(file, _is_at_pixels)
    except Exception:  # noqa: BLE001  whatever pydicom makes of the whole file, it is told there
        return None
    place = file.tell()
    name = content[place : place + 6]
    if name[:4] != b"\xe0\x7f\x10\x00" or len(content) - place < 12:
        return None
    is_implicit = after_meta(content)[1] == ImplicitVRLittleEndian
    if is_implicit == (name[4:6] in VRS) or not (is_implicit or name[4:6] in _NATIVE_VRS):
        return None  # another one than it says
    begin = place + (8 if is_implicit else 12)
    vr = None if is_implicit else name[4:6].decode("ascii")
    length = int.from_bytes(content[begin - 4 : begin], "little")
    if begin + length != size:
        return None
    value = value_at(content, _PIXEL_DATA, vr, begin, length)
    dataset[tag_at(_PIXEL_DATA)] = RawDataElement(tag_at(_PIXEL_DATA), vr, length, value, begin, is_implicit, True)
    return dataset


def _is_at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) == _PIXEL_DATA
