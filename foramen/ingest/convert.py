"""One file of any kind → the DICOM instances it is, each with what had to be mended or changed on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmwrite

from foramen.ingest import model3d
from foramen.ingest.dicom_file import read_dicom
from foramen.ingest.mp4 import is_mp4
from foramen.ingest.pictures import read_slice
from foramen.ingest.sidecar import Description, Sidecar, read_description
from foramen.ingest.single_picture import wrap_picture
from foramen.ingest.video import wrap_video
from foramen.ingest.volume_file import is_volume, read_volume
from foramen.ingest.volume_series import wrap_world_volume
from foramen.ingest.wrap import Slice, wrap_slices
from foramen.kernel.errors import InteropError

SIDECAR_NAME = "sidecar.json"
_LARGEST_FILE_BYTES = 4 * 1024**3
_LARGEST_VOLUME_BYTES = 4 * 1024**3
_VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov")
_HEAD_BYTES = 132
Wrapped = tuple[list[Dataset], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Item:
    """One instance to send (`dataset` with its `content`), or a file that cannot be sent (`fault`).

    `mended`: what was wrong with the file, or changed on the way; words without any value of the file. `source`: the
    file it came from, where that gave several.
    """

    name: str
    content: bytes = b""
    dataset: Dataset | None = None
    fault: str = ""
    mended: tuple[str, ...] = ()
    source: str = ""


def file_items(file: Path, name: str, sidecar: Path | None, description: Description | None) -> Iterator[Item]:
    """Read one file that is neither an archive nor a slice."""
    try:
        kind, wrap = _way_of(file)
        if wrap is None:
            instance = read_dicom(file.read_bytes())
            yield Item(name, instance.content, instance.dataset, mended=instance.mended)
            return
        about = description_of(file, sidecar, description)
        if about is None:
            yield Item(name, fault=f"a {kind} needs a sidecar (--sidecar, or {SIDECAR_NAME} beside it)")
            return
        datasets, told = wrap(file, about)
    except InteropError as error:
        yield Item(name, fault=_lower_first(error.message))
        return
    except OSError as exc:
        yield Item(name, fault=f"it cannot be read ({exc.strerror or type(exc).__name__})")
        return
    yield from _encoded(datasets, name, told)


def _way_of(file: Path) -> tuple[str, Callable[[Path, Description], Wrapped] | None]:
    """What a file is, and how it becomes DICOM; None: it is DICOM, or has to be."""
    if file.stat().st_size > _LARGEST_FILE_BYTES:
        raise _TooLargeError(f"The file is larger than {_LARGEST_FILE_BYTES} bytes")
    with file.open("rb") as opened:
        head = opened.read(_HEAD_BYTES)
    if head[128:132] == b"DICM":
        return "DICOM file", None
    if is_volume(file):
        return "volume", lambda path, about: wrap_world_volume(read_volume(path, _LARGEST_VOLUME_BYTES), about)
    if is_mp4(head) or file.suffix.lower() in _VIDEO_SUFFIXES:
        return "video", lambda path, about: _single(wrap_video(path, about))
    if file.suffix.lower() in model3d.SUFFIXES:
        return "model", lambda path, about: _single(model3d.wrap_model(path, about))
    return "DICOM file", None


class _TooLargeError(InteropError):
    """A file is larger than what is read in one piece."""

    status, issue_code = 413, "too-long"


def _single(wrapped: tuple[Dataset, tuple[str, ...]]) -> Wrapped:
    return [wrapped[0]], wrapped[1]


def _lower_first(text: str) -> str:
    return text if text.startswith(("DICOM", "MP4", "JPEG", "ZIP")) else text[:1].lower() + text[1:]


def _encoded(datasets: list[Dataset], name: str, told: tuple[str, ...]) -> Iterator[Item]:
    for number, dataset in enumerate(datasets, start=1):
        target = BytesIO()
        dcmwrite(target, dataset, enforce_file_format=True)
        place = name if len(datasets) == 1 else f"{name}: slice {number}"
        yield Item(place, target.getvalue(), dataset, mended=told if number == 1 else (), source=name)


def description_of(file: Path, sidecar: Path | None, description: Description | None) -> Description | None:
    """Return what describes a file: the sidecar named, `FILE.sidecar.json`, `sidecar.json` beside it, else the given.

    Raises
    ------
    InvalidRequestError
        The sidecar is not valid.
    """
    for place in (sidecar, file.with_name(f"{file.name}.{SIDECAR_NAME}"), file.with_name(SIDECAR_NAME)):
        if place is not None and place.is_file():
            return read_description(place)
    return description


def picture_items(
    files: list[Path], naming: Callable[[Path], str], sidecar: Path | None, description: Description | None
) -> Iterator[Item]:
    """Read the pictures of one folder: one series where the sidecar tells the geometry of slices, else one by one."""
    slices: list[tuple[Path, Sidecar]] = []
    for file in files:
        try:
            about = description_of(file, sidecar, description)
            if isinstance(about, Sidecar):
                slices.append((file, about))
            elif about is None:
                fault = f"a picture needs a sidecar (--sidecar, or {SIDECAR_NAME} beside it)"
                yield Item(naming(file), fault=fault)
            else:
                dataset, told = wrap_picture(file, about)
                yield from _encoded([dataset], naming(file), told)
        except InteropError as error:
            yield Item(naming(file), fault=_lower_first(error.message))
        except OSError as exc:
            yield Item(naming(file), fault=f"it cannot be read ({exc.strerror or type(exc).__name__})")
    for about in dict.fromkeys(sidecar for _, sidecar in slices):
        yield from _slice_items([file for file, of in slices if of == about], about, naming)


def _slice_items(files: list[Path], sidecar: Sidecar, naming: Callable[[Path], str]) -> Iterator[Item]:
    slices: list[Slice] = []
    for file in files:
        try:
            slices.append(read_slice(file, sidecar))
        except InteropError as error:
            yield Item(naming(file), fault=_lower_first(error.message))
    if not slices:
        return
    try:
        datasets = wrap_slices(slices, sidecar)
    except InteropError as error:
        yield Item(files[0].parent.name, fault=_lower_first(error.message))
        return
    yield from _encoded(datasets, "series", ())
