"""Wrap a surface as Encapsulated STL or OBJ, the file unchanged.

DICOM PS3.3 A.85.1 (Encapsulated STL IOD), A.85.2 (Encapsulated OBJ IOD), C.24.2 (Encapsulated Document),
C.35.1 (Manufacturing 3D Model).
"""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import UID, EncapsulatedOBJStorage, EncapsulatedSTLStorage

from foramen.ingest.described import described, equipment, finished, study_uid_of
from foramen.ingest.sidecar import Description
from foramen.kernel.errors import InvalidRequestError
from foramen.kernel.identifiers import derived_uid

_KINDS: dict[str, tuple[UID, str]] = {
    ".stl": (EncapsulatedSTLStorage, "model/stl"),
    ".obj": (EncapsulatedOBJStorage, "model/obj"),
}
SUFFIXES = tuple(_KINDS)
_STL_HEADER, _STL_FACET = 84, 50
_OBJ_LINE = re.compile(rb"\s*(?:#.*|(?:v|vn|vt|vp|f|l|p|o|g|s|mtllib|usemtl|usemap|mg|end|parm)(?:\s.*)?|)")
_OUTSIDE = re.compile(rb"^\s*(?:mtllib|call|csh|maplib)\b", re.MULTILINE)


def wrap_model(path: Path, description: Description) -> tuple[Dataset, tuple[str, ...]]:
    """Wrap one file.

    Returns
    -------
    The dataset with file meta information, and what there is to know of it, in words.

    Raises
    ------
    InvalidRequestError
        Neither a whole binary STL, nor a text one, nor an OBJ file.
    """
    content = path.read_bytes()
    suffix = path.suffix.lower()
    sop_class, media_type = _KINDS[suffix]
    if not (_is_stl(content) if suffix == ".stl" else _is_obj(content)):
        raise InvalidRequestError(f"Not a whole {suffix[1:].upper()} file")
    told = ["taken to be in millimetres: the format does not say"]
    if suffix == ".obj" and _OUTSIDE.search(content):
        told.append("it names files of materials, which are not kept")
    study_uid = study_uid_of(description)
    digest = hashlib.sha256(content).hexdigest()
    series_uid = derived_uid("series", study_uid, digest)
    # The modality of this IOD is always M3D (PS3.3 C.24.1), whatever the sidecar's pictures are.
    plain = description.model_copy(update={"modality": ""})
    dataset = described(plain, sop_class, "M3D", study_uid=study_uid, series_uid=series_uid)
    equipment(dataset)
    dataset.InstanceNumber = 1
    dataset.AcquisitionDateTime = ""
    dataset.BurnedInAnnotation = "NO"
    dataset.FrameOfReferenceUID = derived_uid("frame-of-reference", series_uid)
    dataset.PositionReferenceIndicator = ""
    dataset.DocumentTitle = dataset.SeriesDescription
    dataset.ConceptNameCodeSequence = []
    dataset.MIMETypeOfEncapsulatedDocument = media_type
    dataset.MeasurementUnitsCodeSequence = [_millimetre()]
    dataset.EncapsulatedDocument = content + b"\x00" * (len(content) % 2)
    dataset.EncapsulatedDocumentLength = len(content)
    return finished(dataset, derived_uid("instance", series_uid, digest)), tuple(told)


def _millimetre() -> Dataset:
    unit = Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "mm", "UCUM", "mm"
    return unit


def _is_stl(content: bytes) -> bool:
    """A binary STL has the length its count of facets says; a text one begins and ends with its words."""
    if len(content) >= _STL_HEADER:
        (facets,) = struct.unpack_from("<I", content, 80)
        if len(content) == _STL_HEADER + facets * _STL_FACET:
            return int(facets) > 0
    text = content.strip()
    return text.startswith(b"solid") and b"endsolid" in text[-256:] and b"facet" in text


def _is_obj(content: bytes) -> bool:
    if b"\x00" in content or not content.endswith((b"\n", b"\r")):  # a line that is cut off is the mark of a cut file
        return False
    lines = content.splitlines()
    return any(line.startswith(b"v ") for line in lines) and all(_OBJ_LINE.fullmatch(line) for line in lines)
