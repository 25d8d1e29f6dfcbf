"""Which transfer syntaxes we can answer with, and the media type of a frame in each.

DICOM PS3.18 §8.7.3.5.2 and Tables 8.7.3-2 to 8.7.3-5; PS3.5 Annex A. An allow-list: nothing else is ever encoded.
"""

from __future__ import annotations

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"

NATIVE = frozenset((IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED))

FRAME_MEDIA_TYPES = {
    RLE: "image/dicom-rle",
    JPEG_BASELINE: "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    JPEG_LS_LOSSLESS: "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    JPEG_2000_LOSSLESS: "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.92": "image/jpx",
    "1.2.840.10008.1.2.4.93": "image/jpx",
    HTJ2K_LOSSLESS: "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
}
"""Media type of one compressed frame (PS3.18 Table 8.7.3-5)."""

VIDEO_MEDIA_TYPES = {
    "1.2.840.10008.1.2.4.100": "video/mpeg2",
    "1.2.840.10008.1.2.4.100.1": "video/mpeg2",
    "1.2.840.10008.1.2.4.101": "video/mpeg2",
    "1.2.840.10008.1.2.4.101.1": "video/mpeg2",
    **{f"1.2.840.10008.1.2.4.{number}": "video/mp4" for number in range(102, 107)},
    **{f"1.2.840.10008.1.2.4.{number}.1": "video/mp4" for number in range(102, 107)},
    "1.2.840.10008.1.2.4.107": "video/mp4",
    "1.2.840.10008.1.2.4.108": "video/mp4",
}
"""Media type of the whole stream of a video (PS3.18 Table 8.7.3-4 and -5): all frames are one bit stream."""

LOSSLESS_TARGETS = (JPEG_LS_LOSSLESS, JPEG_2000_LOSSLESS, HTJ2K_LOSSLESS, RLE)
"""What pixel data can be encoded into without a change of any pixel."""

INSTANCE_TARGETS = (EXPLICIT_LITTLE, DEFLATED, *LOSSLESS_TARGETS)
"""Forms of a whole instance. No lossy one: such an instance would be another one (PS3.3 C.12.1.1.1)."""
