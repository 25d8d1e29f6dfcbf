"""Read NIfTI, MetaImage and NRRD volumes with their geometry, and nothing but the file that was named.

https://nifti.nimh.nih.gov/nifti-1/documentation, https://itk.org/Wiki/MetaIO/Documentation,
https://teem.sourceforge.net/nrrd/format.html; ITK gives positions in LPS millimetres, as DICOM has them.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foramen.kernel.errors import InvalidRequestError

SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr")
PIXEL_FILES = (".raw", ".zraw", ".raw.gz")
"""Pixels that lie beside a header; read with it, never alone."""
_NIFTI_HEAD, _CHUNK_BYTES = 352, 1024 * 1024
_TRUNCATED = "The file is truncated"
_HEADER_BYTES = 64 * 1024
_POINTERS = {".mhd": "ElementDataFile", ".mha": "ElementDataFile", ".nhdr": "data file", ".nrrd": "data file"}
_NOT_THE_FILE = "The header names pixels outside its folder, or in several files"


@cache
def _itk() -> Any:
    """ITK, which is 90 MB in memory: only a process that is given a volume loads it. Its functions have no types."""
    return import_module("SimpleITK")


@dataclass(frozen=True, slots=True)
class Volume:
    """A grey volume: `voxels` has shape (slice, row, column).

    `origin` is the centre of voxel [0, 0, 0], `spacing` the distance of neighbours along column, row and slice index,
    `axes` (3, 3) the unit vector of each of these as a column. LPS, millimetres.
    """

    voxels: NDArray[Any]
    origin: NDArray[np.float64]
    spacing: NDArray[np.float64]
    axes: NDArray[np.float64]


def is_volume(path: Path) -> bool:
    """Whether a file's name says it is a volume with its header."""
    return path.name.lower().endswith(SUFFIXES)


def read_volume(path: Path, most_bytes: int) -> Volume:
    """Read a volume.

    Parameters
    ----------
    most_bytes : size of the voxels in memory that is still read; asked of the header, before anything is unpacked

    Raises
    ------
    InvalidRequestError
        Not readable, too large, not three-dimensional and grey, or without a position in space.
    """
    _stays_beside(path)
    reader = _itk().ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        _check_header(reader, most_bytes, path)
        _check_whole(path, math.prod(reader.GetSize()) * _bytes_of(reader))
        image = reader.Execute()
    except RuntimeError as exc:
        reason = "Its axes are not at right angles" if "orthonormal" in str(exc) else "Not a readable volume"
        raise InvalidRequestError(reason) from exc
    if image.GetDimension() == 4:  # NIfTI writers add a fourth dimension of length one
        image = image[:, :, :, 0]
    elif image.GetDimension() == 2:
        image = _itk().JoinSeries(image)
    return Volume(
        _itk().GetArrayFromImage(image),
        np.array(image.GetOrigin()),
        np.array(image.GetSpacing()),
        np.array(image.GetDirection()).reshape(3, 3),
    )


def _check_header(reader: Any, most_bytes: int, path: Path) -> None:
    size = reader.GetSize()
    if len(size) > 4 or (len(size) == 4 and size[3] != 1):
        raise InvalidRequestError("More than three dimensions: send one volume a file")
    if reader.GetNumberOfComponents() != 1:
        raise InvalidRequestError("The voxels are no grey values")
    if math.prod(size) * 8 > most_bytes:  # as if each voxel were of the largest kind
        raise InvalidRequestError(f"The volume is larger than {most_bytes} bytes")
    if ".nii" in path.name.lower() and all(
        reader.HasMetaDataKey(key) and reader.GetMetaData(key) == "0" for key in ("qform_code", "sform_code")
    ):
        # Read anyway it would get an invented position: what was left would be shown as right.
        raise InvalidRequestError("The header says nothing of the position in space (qform and sform are unset)")


def _bytes_of(reader: Any) -> int:
    """Bytes of one voxel in the file."""
    return int(_itk().Image([1, 1], reader.GetPixelID()).GetSizeOfPixelComponent())


def _check_whole(path: Path, voxel_bytes: int) -> None:
    """Refuse a NIfTI file that ends early: ITK fills up with zeros what is missing, and says nothing.

    Raises
    ------
    InvalidRequestError
        Truncated.
    """
    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        return
    held = 0
    try:
        with gzip.open(path) if name.endswith(".gz") else path.open("rb") as file:
            head = file.read(_NIFTI_HEAD)
            held = len(head)
            while chunk := file.read(_CHUNK_BYTES):
                held += len(chunk)
    except (EOFError, OSError, zlib.error) as exc:
        raise InvalidRequestError(_TRUNCATED) from exc
    order = "<" if head[:2] in (b"\x5c\x01", b"\x1c\x02") else ">"
    version_2 = head[4:7] == b"n+2"
    (start,) = struct.unpack_from(f"{order}q", head, 168) if version_2 else struct.unpack_from(f"{order}f", head, 108)
    if held < start + voxel_bytes:
        raise InvalidRequestError(_TRUNCATED)


def _stays_beside(path: Path) -> None:
    """Refuse a header that points to another file than a plain one beside it.

    Raises
    ------
    InvalidRequestError
        It names a path, a pattern or a list; or what it names is a link.
    """
    key = _POINTERS.get(path.suffix.lower())
    if key is None:
        return
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES).decode("latin-1")
    found = re.findall(rf"^\s*{key.replace(' ', ' ?')}\s*[:=]+\s*(.*?)\s*$", head, re.MULTILINE | re.IGNORECASE)
    for name in found:
        if name.upper() == "LOCAL":
            continue
        plain = PurePosixPath(name.replace("\\", "/"))
        if len(plain.parts) != 1 or plain.name in ("..", "") or re.search(r"[\s%:]|^LIST$", name):
            raise InvalidRequestError(_NOT_THE_FILE)
        beside = path.parent / plain.name
        if beside.is_symlink() or not beside.is_file():
            raise InvalidRequestError("The file of pixels that the header names is not beside it")
