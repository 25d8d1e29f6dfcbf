"""Our concept maps: morphology to ICD-10, treatment option to ICD-9-CM-3; codes alone, as the names are licensed.

Sources: clinical model §6.5 (rows "diagnosis ICD-10" and "procedures ICD-9-CM-3"). SNOMED CT targets are filled on a
licensed site (ADR 0008): a stored ConceptMap with the same URL goes before these.
"""

from __future__ import annotations

from typing import Any

from terminology import codes, systems

DISC_TO_ICD10 = f"{systems.BASE}/ConceptMap/morphology-to-icd-10"
OPTION_TO_ICD9CM3 = f"{systems.BASE}/ConceptMap/option-to-icd-9-cm-3"
Target = tuple[str, str, str]
"""(code, equivalence, comment)."""

_DISPLACED = ("M51.2", "wider", "Without radiculopathy or myelopathy; with radiculopathy use M51.1")
_ICD10: dict[str, tuple[Target, ...]] = {
    "bulge": (("M51.2", "inexact", "A bulge is no herniation; the coder decides"),),
    "herniation-unspecified": (_DISPLACED,),
    "protrusion": (_DISPLACED,),
    "extrusion": (_DISPLACED,),
    "sequestration": (_DISPLACED,),
}
_EXCISION = ("80.51", "wider", "Excision of intervertebral disc")
_DECOMPRESSION = ("03.09", "wider", "Exploration and decompression of spinal canal")
_ICD9CM3: dict[str, tuple[Target, ...]] = {
    "O04": (_EXCISION,),
    "O05": (_EXCISION,),
    "O06": (_EXCISION,),
    "O07": (_EXCISION,),
    "O08": (_EXCISION,),
    "O09": (_EXCISION,),
    "O10": (_DECOMPRESSION,),
    "O11": (_EXCISION,),
    "O12": (("81.08", "wider", "Lumbar fusion of the anterior column, posterior technique; check the edition used"),),
    "O13": (("81.06", "wider", "Lumbar fusion of the anterior column, anterior technique; check the edition used"),),
}


def _map(
    url: str, title: str, source: str, target: str, known: dict[str, codes.Code], rows: dict[str, tuple[Target, ...]]
) -> dict[str, Any]:
    elements = []
    for code, item in known.items():
        targets = [
            {"code": found, "equivalence": equivalence, "comment": comment}
            for found, equivalence, comment in rows.get(code, ())
        ]
        nothing = {"equivalence": "unmatched", "comment": "No single code"}
        elements.append({"code": code, "display": item.display, "target": targets or [nothing]})
    identity = url.rpartition("/")[2]
    return {
        "resourceType": "ConceptMap",
        "id": identity,
        "url": url,
        "name": "".join(part.capitalize() for part in identity.split("-")),
        "title": title,
        "status": "draft",
        "sourceUri": source.replace("/CodeSystem/", "/ValueSet/"),
        "group": [{"source": source, "target": target, "element": elements}],
    }


def concept_maps(version: str, publisher: str) -> list[dict[str, Any]]:
    """Return our maps; they are drafts until a hospital's coders confirm them."""
    maps = [
        _map(
            DISC_TO_ICD10,
            "Disc morphology to ICD-10 椎间盘形态与 ICD-10 对照",
            systems.MORPHOLOGY,
            systems.ICD10,
            codes.MORPHOLOGY,
            _ICD10,
        ),
        _map(
            OPTION_TO_ICD9CM3,
            "Treatment option to ICD-9-CM-3 治疗方案与 ICD-9-CM-3 对照",
            systems.OPTION,
            systems.ICD9CM_PROCEDURES,
            codes.OPTIONS,
            _ICD9CM3,
        ),
    ]
    return [{**item, "version": version, "publisher": publisher} for item in maps]
