"""Chinese text of ISO 2022 IR 58 in DICOM, read and written right by every process that reads DICOM.

DICOM PS3.5 §6.1.2.5 and Annex K.2. pydicom 3.0 believes that Python's GB 2312 codec knows the escape sequence, which it
does not: names came out with the sequence in them, and were written without it. Everything else it does by itself.
"""

from __future__ import annotations

from pydicom import charset

_MISTAKEN = "iso_ir_58"


def mend_escape_sequences() -> None:
    """Have pydicom handle the escape sequence of GB 2312 itself; harmless when repeated."""
    charset.handled_encodings = tuple(name for name in charset.handled_encodings if name != _MISTAKEN)
