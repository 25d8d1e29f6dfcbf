"""Codes of DICOM results: anatomy from DICOM's own context groups, our findings in a private scheme (stage 5).

DICOM PS3.16 CID 7150, 7603, 7604 (via pydicom's dictionary); private designators: PS3.16 §8.2 ("99" prefix).
"""

from __future__ import annotations

from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from ai_services.prediction import Segment
from terminology.codes import FINDINGS, MORPHOLOGY, PFIRRMANN

SCHEME = "99FORAMEN"
ANATOMICAL_STRUCTURE: Code = codes.SCT.AnatomicalStructure
VERTEBRAL_CANAL: Code = codes.SCT.VertebralCanal
VERTEBRA: Code = codes.SCT.Vertebra
ALGORITHM_FAMILY: Code = codes.cid7162.ArtificialIntelligence
PROCEDURES = {
    "MR": CodedConcept("24968-0", "LN", "MR Lumbar spine"),
    "CT": CodedConcept.from_code(codes.SCT.ComputedTomography),
}
"""Reported procedure by modality; the region is told by the finding sites."""

_MEANING_LIMIT = 64  # VR LO of Code Meaning, PS3.5 §6.2
_DISCS: dict[str, Code] = {
    "T11-T12": codes.SCT.T11T12Disc,
    "T12-L1": codes.SCT.T12L1Disc,
    "L1-L2": codes.SCT.L1L2Disc,
    "L2-L3": codes.SCT.L2L3Disc,
    "L3-L4": codes.SCT.L3L4Disc,
    "L4-L5": codes.SCT.L4L5Disc,
    "L5-S1": codes.SCT.L5S1Disc,
}
_VERTEBRAE: dict[str, Code] = {
    "T11": codes.SCT.T11Vertebra,
    "T12": codes.SCT.T12Vertebra,
    "L1": codes.SCT.L1Vertebra,
    "L2": codes.SCT.L2Vertebra,
    "L3": codes.SCT.L3Vertebra,
    "L4": codes.SCT.L4Vertebra,
    "L5": codes.SCT.L5Vertebra,
    "S1": codes.SCT.Sacrum,
}
_UNITS = {
    "mm": Code("mm", "UCUM", "millimeter"),
    "%": Code("%", "UCUM", "percent"),
    "deg": Code("deg", "UCUM", "degree"),
    "mm2": Code("mm2", "UCUM", "square millimeter"),
}
_UNNUMBERED_DISC = Code("intervertebral-disc", SCHEME, "Intervertebral disc, level not numbered")


def disc_code(level: str | None) -> Code:
    """Code of the disc at a level."""
    return _DISCS.get(level or "", _UNNUMBERED_DISC)


def structure_code(segment: Segment) -> Code:
    """Code of the structure that a segment holds."""
    if segment.label == "disc":
        return disc_code(segment.level)
    if segment.label == "vertebra-arch":
        return codes.SCT.ArchOfVertebra  # which one stands in the label; there is no code of each level's arch
    return VERTEBRAL_CANAL if segment.label == "canal" else _VERTEBRAE.get(segment.level or "", VERTEBRA)


def site_code(level: str | None) -> Code:
    """Code of what a finding is about: a disc, or a vertebra."""
    return _VERTEBRAE.get(level or "") or disc_code(level)


def vertebra_code(level: str) -> Code | None:
    """Code of a vertebra; None where the level is that of a disc."""
    return _VERTEBRAE.get(level)


def region_code(level: str | None) -> Code:
    """Part of the spine that a structure belongs to: readers list by region, the structure's own code has the level."""
    return codes.SCT.ThoracoLumbarSpine if (level or "").startswith("T") else codes.SCT.LumbarSpine


def finding_concept(code: str) -> CodedConcept:
    """Name of a finding."""
    known = FINDINGS.get(code)
    return _private(code, known.display if known else code)


def value_concept(finding: str, value: str) -> CodedConcept:
    """Coded value of a finding."""
    known = {"F01": MORPHOLOGY, "F06": PFIRRMANN}.get(finding, {}).get(value)
    return _private(f"{finding}-{value}", known.display if known else value)


def absent_concept(reason: str, text_en: str) -> CodedConcept:
    """Value that says why there is none; never a normal value."""
    return _private(f"absent-{reason}", f"Not computed: {text_en}")


def unit_code(unit: str | None) -> Code:
    """UCUM unit; ratios and counts have the unit 1."""
    return _UNITS.get(unit or "1", Code("1", "UCUM", "no units"))


def _private(value: str, meaning: str) -> CodedConcept:
    # PS3.3 §8.1: a code of up to 16 characters goes into Code Value, a longer one into Long Code Value.
    # Cut with ASCII dots: not every source's character set has an ellipsis.
    return CodedConcept(
        value, SCHEME, meaning if len(meaning) <= _MEANING_LIMIT else meaning[: _MEANING_LIMIT - 3] + "..."
    )
