"""Imported code systems in the database, through the service and over HTTP. All content is SYNTHETIC."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from fhir_server.store.connections import Connections
from foramen.cli import app as cli
from foramen.kernel.errors import InvalidRequestError, NotFoundError
from foramen.kernel.settings import get_settings
from terminology import systems
from terminology.importers.kinds import open_release
from terminology.importers.release import BadReleaseError, Problems
from terminology.service import Terminology
from terminology.store import importing
from terminology.store.schema import migrate
from tests.builders import terminology_releases as releases
from tests.contract.fhir.api import Api

NAMES = ("Root", "Disc structure", "Lumbar disc structure", "Old disc", "Herniated lumbar disc", "Left herniation")
PARENTS = ((), (0,), (1,), (), (0, 2), (4,))
SNOMED_VS = f"{systems.SNOMED}?fhir_vs"


def _import(database_url: str, kind: str, path: Path, version: str | None = None, url: str | None = None) -> Problems:
    problems = Problems()
    migrate(database_url)
    importing.import_release(database_url, open_release(kind, path, problems, version, url), problems)
    return problems


def _snomed(folder: Path) -> Path:
    return releases.snomed(
        folder,
        NAMES,
        PARENTS,
        inactive=frozenset({3}),
        chinese={4: "合成腰椎间盘突出"},
        attributes=[(4, "363698007", 2)],
        refset=[4],
    )


@pytest_asyncio.fixture(loop_scope="session")
async def service(database_url: str) -> AsyncIterator[Terminology]:
    migrate(database_url)
    connections = Connections(database_url, 2, 30)
    await connections.start()
    yield Terminology(connections, max_expansion=1000)
    await connections.stop()


def code(number: int) -> str:
    return releases.sctid(number)


async def _codes(service: Terminology, url: str, **more: Any) -> list[str]:
    return [item.code for item in (await service.expand(url, **more)).codes]


async def test_snomed_subsumption_over_several_parents(service: Terminology, database_url: str, tmp_path: Path) -> None:
    _import(database_url, "snomed", _snomed(tmp_path))
    assert await service.subsumed(systems.SNOMED, code(1)) == {code(1), code(2), code(4), code(5)}
    assert await service.ancestors(systems.SNOMED, code(5)) == {code(0), code(1), code(2), code(4), code(5)}
    assert await service.subsumes(systems.SNOMED, code(2), code(5)) == "subsumes"
    assert await service.subsumes(systems.SNOMED, code(5), code(0)) == "subsumed-by"
    assert await service.subsumes(systems.SNOMED, code(3), code(0)) == "not-subsumed"
    assert await service.subsumed(systems.SNOMED, "1") == {"1"}
    with pytest.raises(NotFoundError):
        await service.subsumed("urn:none", "1")
    with pytest.raises(NotFoundError):
        await service.subsumes(systems.SNOMED, "1", code(0))


async def test_snomed_value_sets_and_filters(service: Terminology, database_url: str, tmp_path: Path) -> None:
    _import(database_url, "snomed", _snomed(tmp_path))
    assert await _codes(service, f"{SNOMED_VS}=isa/{code(2)}") == [code(2), code(4), code(5)]
    assert await _codes(service, f"{SNOMED_VS}=isa%2F{code(2)}", offset=1, count=1) == [code(4)]
    assert await _codes(service, f"{SNOMED_VS}=refset/999000001") == [code(4)]
    assert len(await _codes(service, SNOMED_VS)) == 6
    assert code(3) not in await _codes(service, SNOMED_VS, active_only=True)
    assert await _codes(service, SNOMED_VS, filter="herni lumb") == [code(4)]
    assert await _codes(service, SNOMED_VS, filter="椎间盘") == [code(4)]
    page = await service.expand(f"{SNOMED_VS}=isa/{code(4)}", language="zh", designations=True)
    assert page.codes[0].display == "合成腰椎间盘突出"
    assert {item.value for item in page.codes[0].designations} >= {"Herniated lumbar disc (SYNTHETIC)"}

    def inline(*filters: tuple[str, str, str]) -> dict[str, Any]:
        found = [{"property": name, "op": operator, "value": value} for name, operator, value in filters]
        return {"resourceType": "ValueSet", "compose": {"include": [{"system": systems.SNOMED, "filter": found}]}}

    async def listed(*filters: tuple[str, str, str]) -> list[str]:
        return [item.code for item in (await service.expand(None, resource=inline(*filters))).codes]

    assert await listed(("363698007", "=", code(2))) == [code(4)]
    assert await listed(("363698007", "exists", "true")) == [code(4)]
    assert await listed(("concept", "descendent-of", code(2)), ("concept", "is-not-a", code(5))) == [code(4)]
    assert await listed(("concept", "generalizes", code(2))) == [code(0), code(1), code(2)]
    assert await listed(("parent", "=", code(0))) == [code(1), code(4)]
    assert await listed(("display", "regex", ".*lumbar.*"), ("concept", "is-a", code(0))) == [code(4)]
    assert await listed(("code", "in", f"{code(1)},{code(5)}")) == [code(1), code(5)]


async def test_snomed_look_up_and_validation(service: Terminology, database_url: str, tmp_path: Path) -> None:
    _import(database_url, "snomed", _snomed(tmp_path))
    found = await service.lookup(systems.SNOMED, code(4))
    assert (found.name, found.concept.display) == ("SNOMED CT", "Herniated lumbar disc")
    assert [item.code for item in found.parents] == [code(0), code(2)]
    assert [item.code for item in found.children] == [code(5)]
    assert ("363698007", code(2)) in found.concept.properties

    async def valid(value_set: str | None, number: int, **more: Any) -> bool | None:
        answer = await service.validate_code(value_set=value_set, system=systems.SNOMED, code=code(number), **more)
        return answer.result

    assert await valid(f"{SNOMED_VS}=isa/{code(2)}", 5) is True
    assert await valid(f"{SNOMED_VS}=isa/{code(2)}", 1) is False
    assert await valid(None, 1, display="disc  STRUCTURE") is True
    assert await valid(None, 1, display="Root") is False
    assert await valid(None, 1, version="http://snomed.info/sct/1/version/20000101") is None
    # HL7's value set "is-a 404684003" is unknown here, but the system is: no such code, so not in the set.
    assert await valid("http://hl7.org/fhir/ValueSet/clinical-findings", 5) is False


async def test_import_again_replaces_and_a_broken_one_changes_nothing(
    service: Terminology, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("terminology.store.imported._REFRESH_S", 0.0)
    folder = _snomed(tmp_path / "one")
    _import(database_url, "snomed", folder)
    _import(database_url, "snomed", folder)
    assert [item["concepts"] for item in importing.list_releases(database_url)] == [6]
    assert await _codes(service, f"{SNOMED_VS}=isa/{code(4)}") == [code(4), code(5)]
    cyclic = releases.snomed(tmp_path / "two", NAMES, ((), (5,), (1,), (), (2,), (4,)))
    with pytest.raises(BadReleaseError, match="cycle"):
        _import(database_url, "snomed", cyclic)
    assert await _codes(service, f"{SNOMED_VS}=isa/{code(4)}") == [code(4), code(5)]
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT count(DISTINCT system), count(*) FROM terminology.concept").fetchone()
    assert row == (1, 6)
    newer = releases.snomed(tmp_path / "three", NAMES[:3], PARENTS[:3])
    _import(database_url, "snomed", newer, "http://snomed.info/sct/1/version/20270101")
    assert len(await _codes(service, SNOMED_VS)) == 3, "the release imported last is in use"
    assert importing.remove(database_url, systems.SNOMED, "http://snomed.info/sct/1/version/20270101") == 1
    assert len(await _codes(service, SNOMED_VS)) == 6
    assert importing.remove(database_url, systems.SNOMED) == 1
    with pytest.raises(NotFoundError):
        await service.expand(SNOMED_VS)


async def test_loinc_with_answer_lists_and_chinese(service: Terminology, database_url: str, tmp_path: Path) -> None:
    problems = _import(database_url, "loinc", releases.loinc(tmp_path))
    assert problems.count == 1
    assert await _codes(service, "http://loinc.org/vs/LL9901-1") == ["LA9901-1", "LA9902-2"]
    found = await service.lookup(systems.LOINC, "99901-1")
    assert found.version == "9.91"
    assert found.concept.named("zh") == "合成疼痛评分"
    assert await service.subsumed(systems.LOINC, "LP990001-1") == {"LP990001-1", "99901-1", "99902-9"}
    include = {"system": systems.LOINC, "filter": [{"property": "SCALE_TYP", "op": "=", "value": "Qn"}]}
    page = await service.expand(None, resource={"resourceType": "ValueSet", "compose": {"include": [include]}})
    assert [item.code for item in page.codes] == ["99902-9"]


async def test_chinese_edition_with_duplicates(service: Terminology, database_url: str, tmp_path: Path) -> None:
    rows = [("编码", "名称"), ("M99", "合成类目"), ("M99.1", "合成甲"), ("M99.1", "合成乙"), ("M99.101", "合成丙")]
    path = releases.write_csv(tmp_path / "国临.csv", rows, "gbk")
    problems = _import(database_url, "icd10-clinical", path, "2.0")
    assert [(line, reason.partition(";")[0]) for _, line, reason in problems.rows] == [(4, "the code stands twice")]
    system = systems.ICD10_CN_CLINICAL
    assert (await service.lookup(system, "M99.1")).concept.display == "合成甲"
    assert await service.subsumed(system, "M99") == {"M99", "M99.1", "M99.101"}
    answer = await service.validate_code(value_set=None, system=system, code="M99.9")
    assert answer.result is False


async def test_too_many_codes_are_refused_without_count(
    service: Terminology, database_url: str, tmp_path: Path
) -> None:
    rows = [("code", "display"), *((f"c{number:05}", f"Name {number}") for number in range(1500))]
    _import(database_url, "csv", releases.write_csv(tmp_path / "big.csv", rows), "1", "urn:synthetic:big")
    value_set = {"resourceType": "ValueSet", "compose": {"include": [{"system": "urn:synthetic:big"}]}}
    with pytest.raises(InvalidRequestError) as refusal:
        await service.expand(None, resource=value_set)
    assert refusal.value.issue_code == "too-costly"
    page = await service.expand(None, resource=value_set, count=3, offset=1498)
    assert (page.total, [item.code for item in page.codes]) == (1500, ["c01498", "c01499"])


async def test_imported_systems_answer_over_http(api: Api, database_url: str, tmp_path: Path) -> None:
    _import(database_url, "snomed", _snomed(tmp_path))
    path = f"/fhir/CodeSystem/$subsumes?system={systems.SNOMED}&codeA={code(1)}&codeB={code(5)}"
    response = await api.get(path)
    assert response.json()["parameter"] == [{"name": "outcome", "valueCode": "subsumes"}]
    url = f"{SNOMED_VS}%3Disa/{code(2)}"
    response = await api.get(f"/fhir/ValueSet/$expand?url={url}&count=2")
    assert response.json()["expansion"]["total"] == 3
    body = (await api.get("/fhir/metadata?mode=terminology")).json()
    assert systems.SNOMED in [item["uri"] for item in body["codeSystem"]]


def test_the_command_imports_lists_and_removes(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORAMEN_DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)
    get_settings.cache_clear()

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(cli, ["terminology", *arguments])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    try:
        answer = run("import", "loinc", str(releases.loinc(tmp_path / "release")))
        assert (answer["url"], answer["version"], answer["replaced"]) == (systems.LOINC, "9.91", False)
        assert answer["rows_left_out"] == 1
        assert "Loinc.csv,5,not a LOINC number" in Path(answer["report"]).read_text(encoding="utf-8-sig")
        assert run("import", "loinc", str(tmp_path / "release"))["replaced"] is True
        assert [item["url"] for item in run("list")] == [systems.LOINC]
        assert run("remove", systems.LOINC) == {"removed": 1}
        assert run("list") == []
        done = CliRunner().invoke(cli, ["terminology", "import", "snomed", str(tmp_path)])
        assert done.exit_code != 0
    finally:
        get_settings.cache_clear()


async def test_many_searches_at_once_do_not_wait_for_each_other(api: Api) -> None:
    value_set = {"resourceType": "ValueSet", "id": "genders", "url": "urn:synthetic:genders", "status": "active"}
    include = [{"system": "http://hl7.org/fhir/administrative-gender", "concept": [{"code": "male"}]}]
    await api.put_ok({**value_set, "compose": {"include": include}})
    searches = (api.get("/fhir/Patient?gender:in=urn:synthetic:genders") for _ in range(40))
    answers = await asyncio.wait_for(asyncio.gather(*searches), 60)
    assert {answer.status_code for answer in answers} == {200}


async def test_subsumption_of_a_large_polyhierarchy(
    service: Terminology, database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, parents = releases.large_polyhierarchy(20_000)
    began = time.process_time()
    _import(database_url, "snomed", releases.snomed(tmp_path, names, parents))
    imported = time.process_time() - began
    with psycopg.connect(database_url) as connection:
        plan = connection.execute(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT reach FROM terminology.concept WHERE system ="
            " (SELECT id FROM terminology.code_system) AND number = 17"
        ).fetchone()
    assert plan is not None
    root = plan[0][0]["Plan"]
    buffers = root["Shared Hit Blocks"] + root["Shared Read Blocks"]
    children: dict[int, list[int]] = {}
    for number, above in enumerate(parents):
        for parent in above:
            children.setdefault(parent, []).append(number)
    expected, open_ = {5}, [5]
    while open_:
        for child in children.get(open_.pop(), ()):
            if child not in expected:
                expected.add(child)
                open_.append(child)
    assert await service.subsumed(systems.SNOMED, code(5)) == {code(number) for number in expected}
    page = await service.expand(f"{SNOMED_VS}=isa/{code(5)}", count=10, offset=len(expected) - 10)
    assert page.total == len(expected)
    assert len(page.codes) == 10
    deepest = len(names) - 1
    assert await service.subsumes(systems.SNOMED, code(0), code(deepest)) == "subsumes"
    with capsys.disabled():
        print(f"\n20,000 concepts: import {imported:.1f} s CPU in Python, one reach = {buffers} buffers")  # noqa: T201
    assert buffers < 12
