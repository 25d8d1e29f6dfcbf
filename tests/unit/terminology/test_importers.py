"""Importers read the exact layouts, leave bad rows out and say which. All content is SYNTHETIC."""

from __future__ import annotations

import zipfile
from pathlib import Path

import openpyxl
import pytest

from terminology.importers.kinds import KINDS, open_release
from terminology.importers.release import BadReleaseError, Problems
from terminology.importers.tables import plain
from tests.builders import terminology_releases as releases

NAMES = ("Root", "Disc", "Lumbar disc", "Old disc")
PARENTS = ((), (0,), (0, 1), ())


def _zip(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder))
    return target


def test_snomed_reads_the_same_from_folder_and_zip(tmp_path: Path) -> None:
    folder = releases.snomed(
        tmp_path / "rf2",
        NAMES,
        PARENTS,
        inactive=frozenset({3}),
        chinese={2: "合成腰椎间盘"},
        attributes=[(2, "363698007", 1)],
        refset=[2],
    )
    archive = _zip(folder, tmp_path / "release.zip")
    answers = []
    for path in (folder, archive):
        problems = Problems()
        release = open_release("snomed", path, problems, None, None)
        assert release.version == "http://snomed.info/sct/900000000000207008/version/20260131"
        answers.append(
            (
                list(release.concepts()),
                list(release.parents()),
                list(release.designations()),
                list(release.properties()),
            )
        )
        assert problems.count == 0
    assert answers[0] == answers[1]
    concepts, parents, designations, properties = answers[0]
    assert [row.active for row in concepts] == [True, True, True, False]
    assert [(row.code, row.parent) for row in parents] == [
        (releases.sctid(1), releases.sctid(0)),
        (releases.sctid(2), releases.sctid(0)),
        (releases.sctid(2), releases.sctid(1)),
    ]
    uses = {row.value: row.use for row in designations}
    assert uses["Disc"] == "display"
    assert uses["Disc (SYNTHETIC)"] == releases.FULLY_SPECIFIED
    assert uses["合成腰椎间盘"] == releases.SYNONYM
    assert (releases.sctid(2), "363698007", releases.sctid(1)) in properties
    assert (releases.sctid(2), "refset", "999000001") in properties


def test_bad_rows_of_rf2_are_named_by_file_and_line(tmp_path: Path) -> None:
    folder = releases.snomed(tmp_path, NAMES, PARENTS)
    file = next(folder.rglob("sct2_Concept_Snapshot_*"))
    with file.open("a", encoding="utf-8") as target:
        target.write("990000099\t20260131\r\nnot-a-number\t20260131\t1\tm\td\r\n")
    problems = Problems()
    release = open_release("snomed", folder, problems, None, None)
    assert len(list(release.concepts())) == 4
    list(release.concepts())
    assert problems.count == 2, "reading twice reports once"
    assert [(line, reason) for _, line, reason in problems.rows] == [
        (6, "2 columns instead of 5"),
        (7, "not a SNOMED CT identifier"),
    ]
    problems.write(tmp_path / "report.csv")
    assert "not-a-number" not in (tmp_path / "report.csv").read_text(encoding="utf-8")


def test_an_edition_that_does_not_say_its_version_needs_one(tmp_path: Path) -> None:
    folder = releases.snomed(tmp_path, NAMES, PARENTS)
    for file in folder.rglob("*_INT_*"):
        file.rename(file.with_name(file.name.replace("_INT_", "_CN1000000_")))
    with pytest.raises(BadReleaseError, match="--version"):
        open_release("snomed", folder, Problems(), None, None)
    assert open_release("snomed", folder, Problems(), "http://x/version/1", None).version == "http://x/version/1"


def test_loinc(tmp_path: Path) -> None:
    problems = Problems()
    release = open_release("loinc", releases.loinc(tmp_path), problems, None, None)
    assert release.version == "9.91"
    concepts = {row.code: row for row in release.concepts()}
    assert set(concepts) == {"99901-1", "99902-9", "99903-7", "LP990001-1", "LA9901-1", "LA9902-2"}
    assert not concepts["99903-7"].active
    assert [(row.code, row.parent) for row in release.parents()] == [
        ("99901-1", "LP990001-1"),
        ("99902-9", "LP990001-1"),
    ]
    assert ("99901-1", "zh-CN", "display", "合成疼痛评分") in list(release.designations())
    assert ("99902-9", "SCALE_TYP", "Qn") in list(release.properties())
    value_set = next(release.value_sets())
    assert value_set.url == "http://loinc.org/vs/LL9901-1"
    assert [item["code"] for item in value_set.resource["compose"]["include"][0]["concept"]] == ["LA9901-1", "LA9902-2"]
    assert [reason for *_, reason in problems.rows] == ["not a LOINC number"]


def test_icd10_as_claml(tmp_path: Path) -> None:
    (tmp_path / "icd.xml").write_text(releases.CLAML, encoding="utf-8")
    problems = Problems()
    release = open_release("icd10", tmp_path / "icd.xml", problems, None, None)
    assert release.version == "2099"
    assert ("A00", "SYNTHETIC category") in [(row.code, row.display) for row in release.concepts()]
    assert ("A00-A09", "I") in [(row.code, row.parent) for row in release.parents()]
    assert ("A00.1", "usage", "dagger") in list(release.properties())
    assert ("A00-A09", "zh", "display", "合成类目组") in list(release.designations())
    assert problems.count == 1


def test_broken_xml_says_its_line(tmp_path: Path) -> None:
    (tmp_path / "icd.xml").write_text(releases.CLAML[:-30], encoding="utf-8")
    release = open_release("icd10", tmp_path / "icd.xml", Problems(), None, None)
    with pytest.raises(BadReleaseError, match="line"):
        list(release.concepts())


def test_icd10_as_who_text(tmp_path: Path) -> None:
    problems = Problems()
    release = open_release("icd10", releases.who_text(tmp_path), problems, None, None)
    assert release.version == "2099"
    assert [row.code for row in release.concepts()] == ["01", "A00-A09", "A00", "A00.0"]
    assert {(row.code, row.parent) for row in release.parents()} == {
        ("A00-A09", "01"),
        ("A00", "A00-A09"),
        ("A00.0", "A00"),
    }
    assert problems.count == 1


TWO = [
    ("合成标题",),
    (),
    ("主要编码", "疾病名称"),
    ("Ｍ９９．１０１", "合成（一）"),
    ("M99.1", "合成甲"),
    ("", "无编码"),
    ("M99", "合成类目"),
]
THREE = [("主要编码", "附加编码", "疾病名称"), ("M98.101", "G98.1*", "合成丙"), ("M98.1", "", "合成丁")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "gb18030", "utf-16"])
def test_chinese_csv_in_any_usual_encoding(tmp_path: Path, encoding: str) -> None:
    path = releases.write_csv(tmp_path / "国临版.csv", TWO, encoding)
    problems = Problems()
    release = open_release("icd10-clinical", path, problems, "2.0", None)
    assert [(row.code, row.display) for row in release.concepts()] == [
        ("M99.101", "合成（一）"),
        ("M99.1", "合成甲"),
        ("M99", "合成类目"),
    ]
    assert {(row.code, row.parent) for row in release.parents()} == {("M99.101", "M99.1"), ("M99.1", "M99")}
    assert [(line, reason) for _, line, reason in problems.rows] == [(6, "the code is missing")]


def test_additional_codes_are_properties(tmp_path: Path) -> None:
    release = open_release("icd10-clinical", releases.write_csv(tmp_path / "a.csv", THREE), Problems(), "2.0", None)
    assert list(release.properties()) == [("M98.101", "附加编码", "G98.1*")]
    assert ("M98.1", "zh-CN", "display", "合成丁") in list(release.designations())


def test_levels_side_by_side_in_a_workbook(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["医保合成表"])
    sheet.append(["章的名称", "类目代码", "类目名称", "亚目代码", "亚目名称", "诊断代码", "诊断名称"])
    sheet.append(["合成章", "M97", "合成类目", "M97.1", "合成亚目", "M97.100", "合成诊断一"])
    sheet.append([None, None, None, None, None, "M97.100x001", "合成诊断二"])
    sheet.append([None, "M96", "合成无亚目", None, None, "M96.x00", "合成诊断三"])
    second = book.create_sheet("第二页")
    second.append(["编码", "名称"])
    second.append([8051, "合成数字编码"])
    book.save(tmp_path / "医保.xlsx")
    release = open_release("icd10-insurance", tmp_path / "医保.xlsx", Problems(), "2.0", None)
    assert [row.code for row in release.concepts()] == [
        *("M97", "M97.1", "M97.100", "M97.100x001", "M96", "M96.x00", "8051"),
    ]
    parents = {row.code: row.parent for row in release.parents()}
    assert parents["M97.100"] == "M97.1"
    assert parents["M97.1"] == "M97"
    assert parents["M97.100x001"] == "M97.1"
    assert parents["M96.x00"] == "M96"
    assert ("M97.100", "章的名称", "合成章") in list(release.properties())


def test_procedures_with_extended_codes(tmp_path: Path) -> None:
    rows = [("手术操作编码", "手术操作名称"), ("99.5", "合成"), ("99.51", "合成"), ("99.5100x008", "合成扩展")]
    release = open_release("icd9cm3-clinical", releases.write_csv(tmp_path / "o.csv", rows), Problems(), "3.0", None)
    parents = {row.code: row.parent for row in release.parents()}
    assert parents == {"99.51": "99.5", "99.5100x008": "99.51"}


def test_any_table_with_parents_and_status(tmp_path: Path) -> None:
    rows = [
        ("code", "display", "parent", "zh", "status", "colour"),
        ("a1", "Alpha", "", "甲", "active", "red"),
        ("a2", "Beta", "a1", "", "retired", ""),
    ]
    path = releases.write_csv(tmp_path / "t.tsv", rows)
    release = open_release("csv", path, Problems(), "1", "urn:synthetic")
    assert [(row.code, row.active) for row in release.concepts()] == [("a1", True), ("a2", False)]
    assert [(row.code, row.parent) for row in release.parents()] == [("a2", "a1")]
    assert list(release.designations()) == [("a1", "zh-CN", "display", "甲")]
    assert list(release.properties()) == [("a1", "colour", "red")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_the_files_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(BadReleaseError):
        open_release(kind, tmp_path, Problems(), "1", "urn:x")


def test_a_table_without_header_or_version_is_refused(tmp_path: Path) -> None:
    path = releases.write_csv(tmp_path / "t.csv", [("M99", "合成")])
    with pytest.raises(BadReleaseError, match="header"):
        list(open_release("icd10-clinical", path, Problems(), "1", None).concepts())
    with pytest.raises(BadReleaseError, match="--version"):
        open_release("icd10-clinical", path, Problems(), None, None)
    (tmp_path / "old.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(BadReleaseError, match="XLSX"):
        list(open_release("icd10-clinical", tmp_path / "old.xls", Problems(), "1", None).concepts())
    (tmp_path / "broken.xlsx").write_bytes(b"no zip")
    with pytest.raises(BadReleaseError, match="workbook"):
        list(open_release("icd10-clinical", tmp_path / "broken.xlsx", Problems(), "1", None).concepts())
    with pytest.raises(BadReleaseError, match="kinds"):
        open_release("rxnorm", tmp_path, Problems(), None, None)


def test_fullwidth_and_invisible_signs_of_a_code_are_made_plain() -> None:
    assert plain(" Ｍ５１．１０１＋\u200b\ufeff ") == "M51.101+"
