"""Frames of multi-frame instances as single images, and the volumes a series holds.

DICOM PS3.3 C.7.6.16 (Multi-frame Functional Groups), C.7.6.16.2.2 (Frame Content), C.8.13.1 (Enhanced MR). A series of
the enhanced kind holds one volume for each stack, frame type and echo, and often the same volume at many times.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from ai_services.imaging.geometry import is_enhanced

_OF_INSTANCE = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "BurnedInAnnotation"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation"),
    *("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness", "RescaleSlope"),
    *("RescaleIntercept", "InPlanePhaseEncodingDirection"),
)
_OF_GROUPS = {
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "MRFOVGeometrySequence": ("InPlanePhaseEncodingDirection",),
    "FrameContentSequence": ("StackID",),
    "MRImageFrameTypeSequence": ("FrameType",),
    "MREchoSequence": ("EffectiveEchoTime",),
}


@dataclass(frozen=True, slots=True)
class Part:
    """One volume of a series.

    Parameters
    ----------
    name : what tells it from the other volumes of the series, without data of a person; empty: it is the only one
    images : its images, one a place
    repeats : how many further times the same places were imaged; those are not among `images`
    """

    name: str
    images: tuple[Dataset, ...]
    repeats: int = 0


def parts_of(datasets: Sequence[Dataset]) -> list[Part]:
    """Divide a series into volumes; a classic series is one, whatever it holds."""
    if not any(is_enhanced(dataset) for dataset in datasets):
        return [Part("", tuple(datasets))]
    found: dict[tuple[str, ...], list[Dataset]] = defaultdict(list)
    for dataset in sorted(datasets, key=lambda item: int(item.get("InstanceNumber") or 0)):
        for frame in frames_of(dataset):
            found[_kind(frame)].append(frame)
    parts = []
    for number, (kind, frames) in enumerate(sorted(found.items()), start=1):
        first, repeats = _first_time(frames)
        name = f"{number}/{len(found)} {' '.join(filter(None, kind))}".strip() if len(found) > 1 else ""
        parts.append(Part(name, tuple(first), repeats))
    return parts


def frames_of(dataset: Dataset) -> list[Dataset]:
    """Return each frame as an image of its own, with the values of its functional groups at the top.

    An instance whose pixels cannot be decoded comes back as it is: who reads its grey values is told why they cannot.
    """
    if not is_enhanced(dataset):
        return [dataset]
    try:
        pixels = dataset.pixel_array
    except Exception:  # noqa: BLE001  decoders raise many kinds; `pixel_values` words them for people
        return [dataset]
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        return [dataset]
    planes = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    shared = (list(dataset.get("SharedFunctionalGroupsSequence") or []) or [Dataset()])[0]
    return [
        _image(dataset, shared, groups[number] if number < len(groups) else Dataset(), plane)
        for number, plane in enumerate(planes)
    ]


def _image(dataset: Dataset, shared: Dataset, own: Dataset, plane: NDArray[np.generic]) -> Dataset:
    image = Dataset()
    for keyword in _OF_INSTANCE:
        if keyword in dataset:
            setattr(image, keyword, dataset[keyword].value)
    for sequence, keywords in _OF_GROUPS.items():
        for group in (shared, own):
            for item in list(group.get(sequence) or [])[:1]:
                for keyword in keywords:
                    if item.get(keyword) is not None:
                        setattr(image, keyword, item[keyword].value)
    bits = plane.dtype.itemsize * 8
    image.BitsAllocated = image.BitsStored = bits
    image.HighBit, image.PixelRepresentation = bits - 1, int(plane.dtype.kind == "i")
    image.PixelData = np.ascontiguousarray(plane).tobytes()
    image["PixelData"].VR = "OW"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return image


def _kind(frame: Dataset) -> tuple[str, ...]:
    """What tells the volumes of a series apart: stack, type of frame, echo time."""
    echo, types = frame.get("EffectiveEchoTime"), frame.get("FrameType")
    return (
        f"stack {frame.StackID}" if frame.get("StackID") else "",
        "/".join(str(word) for word in types) if types else "",
        f"TE {float(echo):g} ms" if echo else "",
    )


def _first_time(frames: Sequence[Dataset]) -> tuple[list[Dataset], int]:
    """Return the first image of each place, and how often the most imaged place comes again."""
    places: dict[tuple[float, ...], int] = defaultdict(int)
    first = []
    for number, frame in enumerate(frames):
        position = frame.get("ImagePositionPatient")
        place = tuple(round(float(value), 2) for value in position) if position else (float(number),)
        if not places[place]:
            first.append(frame)
        places[place] += 1
    return first, max(places.values()) - 1
