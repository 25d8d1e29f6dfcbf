"""Pixel data under the profile: stored bytes without hidden parts, burnt-in text blackened or the instance held back.

DICOM PS3.15 E.3.1 (Clean Pixel Data Option), PS3.5 §8 and Annex A (encodings), PS3.3 C.7.6.3 (Burned In Annotation).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicomweb.deidentification.burnt_in_text import TextRegion, text_regions
from dicomweb.deidentification.codestreams import CLEANABLE, BrokenCodestreamError, without_comments

_MOST_PIXELS = 512 * 1024 * 1024
_MOSAIC_LETTER_PX = 24
_PLAIN = frozenset({str(ImplicitVRLittleEndian), str(ExplicitVRLittleEndian), str(DeflatedExplicitVRLittleEndian)})
_LITTLE = str(ExplicitVRLittleEndian)


@dataclass(frozen=True, slots=True)
class CleanedPixels:
    """What was found and done.

    Parameters
    ----------
    held_back : reason why the instance may not be given out; empty: it may
    looked : whether every frame was searched for text
    regions : places with text, in all frames together
    """

    transfer_syntax_uid: str
    held_back: str = ""
    looked: bool = False
    frames: int = 0
    regions: int = 0
    blackened: bool = False


def clean_pixels(
    source: Dataset, result: Dataset, syntax: str, kind: str, *, look: bool, blacken: bool = False
) -> CleanedPixels:
    """Put the pixel data that may stay into `result`.

    Parameters
    ----------
    kind : none, check or suspect, as the rules say of the SOP class
    blacken : blacken findings of kind `check`, too
    """
    if "PixelData" not in source:
        has_float = "FloatPixelData" in source or "DoubleFloatPixelData" in source
        return CleanedPixels(_LITTLE, "float-pixels" if has_float and kind != "none" else "")
    compressed = syntax not in _PLAIN and syntax != ExplicitVRBigEndian
    if compressed and syntax not in CLEANABLE:
        return CleanedPixels(syntax, "transfer-syntax")
    if kind == "suspect" and not look:
        return CleanedPixels(syntax, "burnt-in-text-not-looked-for")
    try:
        if kind == "none":
            return _stored(source, result, syntax, CleanedPixels(syntax), compressed=compressed)
        return _searched(source, result, syntax, kind, look=look, blacken=blacken or kind == "suspect")
    except (BrokenCodestreamError, ValueError, EOFError, AttributeError, RuntimeError, NotImplementedError, KeyError):
        # pydicom and its codecs raise these for pixel data that is not what the header says.
        return CleanedPixels(syntax, "undecodable")


def _searched(source: Dataset, result: Dataset, syntax: str, kind: str, *, look: bool, blacken: bool) -> CleanedPixels:
    compressed = syntax not in _PLAIN and syntax != ExplicitVRBigEndian
    if not look:
        return _stored(source, result, syntax, CleanedPixels(syntax), compressed=compressed)
    letter_px = _MOSAIC_LETTER_PX if "MOSAIC" in (source.get("ImageType") or ()) else 64
    found: dict[int, list[TextRegion]] = {}
    count = 0
    for count, frame in enumerate(_frames(source), 1):
        regions = text_regions(frame, letter_px)
        if regions:
            found[count - 1] = regions
    regions_in_all = sum(len(regions) for regions in found.values())
    declared = str(source.get("BurnedInAnnotation") or "")
    report = CleanedPixels(syntax, looked=True, frames=count, regions=regions_in_all)
    if found and blacken:
        return _blackened(source, result, found, report, letter_px)
    if found:
        return _held(report, "burnt-in-text")
    if declared == "YES" or (kind == "suspect" and declared != "NO"):
        return _held(report, "burnt-in-text-declared" if declared == "YES" else "burnt-in-text-not-excluded")
    return _stored(source, result, syntax, report, compressed=compressed)


def _held(report: CleanedPixels, reason: str) -> CleanedPixels:
    return CleanedPixels(report.transfer_syntax_uid, reason, True, report.frames, report.regions)


def _frames(source: Dataset) -> Iterator[NDArray[Any]]:
    """Decode frame by frame."""
    frames = int(source.get("NumberOfFrames") or 1)
    if int(source.Rows) * int(source.Columns) * int(source.get("SamplesPerPixel") or 1) > _MOST_PIXELS:
        raise ValueError("too large")
    for index in range(frames):
        yield pixel_array(source, index=index)


def _stored(source: Dataset, result: Dataset, syntax: str, report: CleanedPixels, *, compressed: bool) -> CleanedPixels:
    """Keep the stored bytes, but nothing that the header does not account for."""
    if compressed:
        count = int(source.get("NumberOfFrames") or 1)
        frames = [
            without_comments(frame, syntax) for frame in generate_frames(source.PixelData, number_of_frames=count)
        ]
        if len(frames) != count:
            raise BrokenCodestreamError
        result.PixelData = encapsulate(frames)
        result["PixelData"].VR = "OB"
        for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
            result.pop(name, None)
        return report
    bits = int(source.BitsAllocated)
    samples = int(source.Rows) * int(source.Columns) * int(source.get("SamplesPerPixel") or 1)
    size = (samples * int(source.get("NumberOfFrames") or 1) * bits + 7) // 8
    content = bytes(source.PixelData)[:size]
    if len(content) < size:
        raise ValueError("too short")
    words = bits // 8
    if syntax == ExplicitVRBigEndian and words > 1:
        content = np.frombuffer(content, f">u{words}").astype(f"<u{words}").tobytes()
    content = _without_spare_bits(content, source)
    result.PixelData = content + b"\x00" * (len(content) % 2)
    result["PixelData"].VR = "OW" if words > 1 else "OB"
    return CleanedPixels(_LITTLE, "", report.looked, report.frames, report.regions)


def _without_spare_bits(content: bytes, source: Dataset) -> bytes:
    """Clear bits that belong to no pixel: old overlays lie there (PS3.5 §8.1.2), anything else could.

    Signed values keep their sign; a padding value that needs those bits stays possible by `High Bit` alone.
    """
    bits, stored = int(source.BitsAllocated), int(source.get("BitsStored") or source.BitsAllocated)
    high = int(source.get("HighBit") or stored - 1)
    if bits not in (8, 16, 32) or stored >= bits or high != stored - 1:
        return content
    values = np.frombuffer(content, f"<u{bits // 8}")
    if int(source.get("PixelRepresentation") or 0) == 0:
        return (values & ((1 << stored) - 1)).astype(values.dtype).tobytes()
    spare = bits - stored
    signed = values.astype(f"<i{bits // 8}")
    return ((signed << spare) >> spare).astype(f"<i{bits // 8}").tobytes()


def _blackened(
    source: Dataset, result: Dataset, found: dict[int, list[TextRegion]], report: CleanedPixels, letter_px: int
) -> CleanedPixels:
    """Blacken the regions of all frames in every frame, look again, and write the pixels uncompressed."""
    regions = [region for of_frame in found.values() for region in of_frame]
    ink = _black(source)
    frames = []
    for frame in _frames(source):
        copy = np.array(frame)
        for one in regions:
            copy[one.top : one.bottom, one.left : one.right] = ink
        left = [one for one in text_regions(copy, letter_px) if not any(_inside(one, region) for region in regions)]
        if left:
            return _held(report, "burnt-in-text")
        frames.append(copy)
    photometric = str(source.PhotometricInterpretation)
    result.PixelData = b"".join(frame.tobytes() for frame in frames)
    if len(result.PixelData) % 2:
        result.PixelData += b"\x00"
    result["PixelData"].VR = "OW" if int(source.BitsAllocated) > 8 else "OB"
    if frames[0].ndim == 3:
        result.PlanarConfiguration = 0
        # pixel_array gives RGB for what was YBR (its own transformation).
        result.PhotometricInterpretation = "RGB" if photometric.startswith("YBR") else photometric
    return CleanedPixels(_LITTLE, "", True, report.frames, report.regions, True)


def _inside(one: TextRegion, region: TextRegion) -> bool:
    """Whether a finding is the edge of what was blackened."""
    return one.top >= region.top - 8 and one.bottom <= region.bottom + 8


def _black(source: Dataset) -> int:
    """Value that shows black."""
    signed, stored = int(source.get("PixelRepresentation") or 0), int(source.BitsStored)
    if str(source.PhotometricInterpretation) == "MONOCHROME1":
        return (1 << (stored - signed)) - 1
    return -(1 << (stored - 1)) if signed else 0
