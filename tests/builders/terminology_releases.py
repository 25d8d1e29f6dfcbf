"""SYNTHETIC releases in the exact file layouts of SNOMED CT, LOINC and ICD-10; no code or name in them is real."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

IS_A = "116680003"
FULLY_SPECIFIED = "900000000000003001"
SYNONYM = "900000000000013009"
PREFERRED = "900000000000548007"
US_ENGLISH = "900000000000509007"
MODULE = "900000000000207008"
PRIMITIVE = "900000000000074008"
_SUFFIX = "INT_20260131.txt"


def sctid(number: int) -> str:
    """A SYNTHETIC identifier of the right form."""
    return f"{990_000_000 + number}"


def _rf2(path: Path, header: str, rows: Iterable[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(header.replace(" ", "\t") + "\r\n")
        for row in rows:
            file.write("\t".join(row) + "\r\n")


def snomed(
    folder: Path,
    names: Sequence[str],
    parents: Sequence[Sequence[int]],
    *,
    inactive: frozenset[int] = frozenset(),
    chinese: dict[int, str] | None = None,
    attributes: Iterable[tuple[int, str, int]] = (),
    refset: Sequence[int] = (),
) -> Path:
    """Write an RF2 Snapshot; concept `n` has the code `sctid(n)`."""
    root = folder / "SnomedCT_SYNTHETIC" / "Snapshot"
    terms, refsets = root / "Terminology", root / "Refset"
    fixed = ("20260131", "1", MODULE)

    def concepts() -> Iterable[Sequence[str]]:
        for number in range(len(names)):
            yield (sctid(number), "20260131", "0" if number in inactive else "1", MODULE, PRIMITIVE)

    def descriptions() -> Iterable[Sequence[str]]:
        for number, name in enumerate(names):
            yield (f"1{number:08}11", *fixed, sctid(number), "en", FULLY_SPECIFIED, f"{name} (SYNTHETIC)", "1")
            yield (f"2{number:08}11", *fixed, sctid(number), "en", SYNONYM, name, "1")

    def acceptability() -> Iterable[Sequence[str]]:
        for number in range(len(names)):
            yield (f"r{number}", *fixed, US_ENGLISH, f"2{number:08}11", PREFERRED)

    def relationships() -> Iterable[Sequence[str]]:
        tail = ("900000000000011006", "900000000000451002")
        for number, above in enumerate(parents):
            for parent in above:
                yield (f"3{number}{parent}", *fixed, sctid(number), sctid(parent), "0", IS_A, *tail)
        for number, kind, value in attributes:
            yield (f"4{number}{value}", *fixed, sctid(number), sctid(value), "1", kind, *tail)

    _rf2(terms / f"sct2_Concept_Snapshot_{_SUFFIX}", "id effectiveTime active moduleId definitionStatusId", concepts())
    description_header = "id effectiveTime active moduleId conceptId languageCode typeId term caseSignificanceId"
    _rf2(terms / f"sct2_Description_Snapshot-en_{_SUFFIX}", description_header, descriptions())
    if chinese:
        rows = [(f"5{n:08}11", *fixed, sctid(n), "zh", SYNONYM, name, "1") for n, name in chinese.items()]
        _rf2(terms / f"sct2_Description_Snapshot-zh_{_SUFFIX}", description_header, rows)
    _rf2(
        terms / f"sct2_Relationship_Snapshot_{_SUFFIX}",
        "id effectiveTime active moduleId sourceId destinationId relationshipGroup typeId characteristicTypeId"
        " modifierId",
        relationships(),
    )
    language_header = "id effectiveTime active moduleId refsetId referencedComponentId acceptabilityId"
    _rf2(refsets / "Language" / f"der2_cRefset_LanguageSnapshot-en_{_SUFFIX}", language_header, acceptability())
    rows = [(f"s{n}", *fixed, "999000001", sctid(n)) for n in refset]
    simple_header = "id effectiveTime active moduleId refsetId referencedComponentId"
    _rf2(refsets / "Content" / f"der2_Refset_SimpleSnapshot_{_SUFFIX}", simple_header, rows)
    return folder


def large_polyhierarchy(count: int, seed: int = 7) -> tuple[list[str], list[list[int]]]:
    """Names and parents of a SYNTHETIC polyhierarchy of the shape of SNOMED CT: 1.7 parents each, ten levels deep."""
    random_ = random.Random(seed)
    words = ("disc", "root", "lumbar", "structure", "finding", "procedure", "region", "left", "right", "acute")
    names, parents = ["SYNTHETIC root"], [[]]
    for number in range(1, count):
        wanted = random_.choices((1, 2, 3), (0.5, 0.35, 0.15))[0]
        low = max(0, number // 4 - 40)
        parents.append(sorted({random_.randint(low, number // 4) for _ in range(wanted)}))
        names.append(f"{random_.choice(words)} {random_.choice(words)} {number}")
    return names, parents


def write_csv(path: Path, rows: Iterable[Sequence[object]], encoding: str = "utf-8") -> Path:
    """Write a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows(rows)
    return path


_LOINC_HEADER = (
    *("LOINC_NUM", "COMPONENT", "PROPERTY", "TIME_ASPCT", "SYSTEM", "SCALE_TYP", "METHOD_TYP", "CLASS"),
    *("VersionLastChanged", "CHNG_TYPE", "DefinitionDescription", "STATUS", "SHORTNAME", "LONG_COMMON_NAME"),
)


def loinc(folder: Path) -> Path:
    """Write a LOINC release of SYNTHETIC terms."""
    pain = ("99901-1", "Synthetic pain", "Find", "Pt", "^Patient", "Ord", "", "SURVEY", "9.90", "ADD", "", "ACTIVE")
    mass = ("99902-9", "Synthetic mass", "Mass", "Pt", "Disc", "Qn", "", "MEAS", "9.91", "ADD", "Made up.", "ACTIVE")
    old = ("99903-7", "Synthetic old", "Find", "Pt", "Disc", "Nom", "", "MEAS", "9.80", "DEL", "", "DEPRECATED")
    rows = [
        _LOINC_HEADER,
        (*pain, "Pain", "SYNTHETIC pain score"),
        (*mass, "Mass", "SYNTHETIC mass of disc"),
        (*old, "Old", "SYNTHETIC old term"),
        ("bad", "x", *[""] * 9, "ACTIVE", "", "SYNTHETIC bad number"),
    ]
    write_csv(folder / "LoincTable" / "Loinc.csv", rows)
    hierarchy = [
        ("PATH_TO_ROOT", "SEQUENCE", "IMMEDIATE_PARENT", "CODE", "CODE_TEXT"),
        ("", "1", "", "LP990001-1", "SYNTHETIC component"),
        ("LP990001-1", "1", "LP990001-1", "99901-1", "SYNTHETIC pain score"),
        ("LP990001-1", "2", "LP990001-1", "99902-9", "SYNTHETIC mass of disc"),
    ]
    path = folder / "AccessoryFiles" / "ComponentHierarchyBySystem" / "ComponentHierarchyBySystem.csv"
    write_csv(path, hierarchy)
    answers = [
        ("AnswerListId", "AnswerListName", "AnswerListOID", "SequenceNumber", "AnswerStringId", "DisplayText"),
        ("LL9901-1", "SYNTHETIC yes/no", "1.2.3", "1", "LA9901-1", "Yes"),
        ("LL9901-1", "SYNTHETIC yes/no", "1.2.3", "2", "LA9902-2", "No"),
    ]
    write_csv(folder / "AccessoryFiles" / "AnswerFile" / "AnswerList.csv", answers)
    variant = [("LOINC_NUM", "COMPONENT", "LinguisticVariantDisplayName"), ("99901-1", "疼痛", "合成疼痛评分")]
    write_csv(folder / "AccessoryFiles" / "LinguisticVariants" / "zhCN5LinguisticVariant.csv", variant)
    return folder


CLAML = """<?xml version="1.0" encoding="UTF-8"?>
<ClaML version="2.0.0"><Title name="SYNTHETIC" version="2099" date="2099-01-01">SYNTHETIC</Title>
<Class code="I" kind="chapter"><SubClass code="A00-A09"/>
 <Rubric kind="preferred"><Label xml:lang="en">SYNTHETIC chapter</Label></Rubric></Class>
<Class code="A00-A09" kind="block"><SuperClass code="I"/>
 <Rubric kind="preferred"><Label xml:lang="en">SYNTHETIC block</Label>
 <Label xml:lang="zh">合成类目组</Label></Rubric></Class>
<Class code="A00" kind="category"><SuperClass code="A00-A09"/>
 <Rubric kind="preferred"><Label xml:lang="en">SYNTHETIC <Reference>category</Reference></Label></Rubric></Class>
<Class code="A00.1" kind="category" usage="dagger"><SuperClass code="A00"/>
 <Rubric kind="preferred"><Label xml:lang="en">SYNTHETIC subcategory</Label></Rubric></Class>
<Class code="A00.2" kind="category"><SuperClass code="A00"/></Class>
</ClaML>
"""


def who_text(folder: Path) -> Path:
    """Write WHO's semicolon-separated files with SYNTHETIC content."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "icd102099syst_chapters.txt": "01;SYNTHETIC chapter\r\n",
        "icd102099syst_groups.txt": "A00;A09;01;SYNTHETIC block\r\n",
        "icd102099syst_codes.txt": (
            "3;N;X;01;A00;A00.-;A00;A00;SYNTHETIC category;001;4-002;3-003;2-001;1-002\r\n"
            "4;T;X;01;A00;A00.0;A00.0;A000;SYNTHETIC subcategory;001;4-002;3-003;2-001;1-002\r\n"
            "4;T;X;01\r\n"
        ),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return folder
