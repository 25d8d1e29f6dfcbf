"""Stored studies and cohorts leave under pseudonyms; the way back is sealed, needs a permission, and is audited."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from pydicom import dcmread

from dicomweb.deidentification.identity import Subject
from dicomweb.deidentification.profile import Options, Profile
from dicomweb.deidentification.reidentification import Link, ReidentificationTable
from dicomweb.deidentification.report import report_content, report_page, write_report
from dicomweb.deidentification.run import Project, deidentify_all
from dicomweb.deidentification.stored_studies import StoredStudies
from fhir_server.bulk.projects import add_project
from fhir_server.bulk.pseudonyms import Pseudonymiser
from foramen.identity.oauth.operator_token import operator_token
from foramen.kernel.access_context import AccessContext
from foramen.kernel.crypto.pseudonyms import ProjectPseudonyms
from foramen.kernel.errors import ForbiddenError, InteropError, InvalidRequestError, NotFoundError
from foramen.kernel.project_keys import read_project_key
from tests.builders.dicom import series
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import Gateway

PASSWORD = "Correct-horse-battery-9\n"
WHO = AccessContext("surgeon", "foramen-cli", ())


@pytest.fixture(scope="module")
async def stored(gateway: Gateway) -> str:
    await gateway.add_patient("DEID-1", "deid-1")
    instances = series(2, seed=77, patient_id="DEID-1", patient_name="QUIXOTEA^ZWYPLKOR")
    response = await gateway.store(*instances)
    assert response.status_code == 200
    uid = str(instances[0].StudyInstanceUID)
    await gateway.register(uid)
    await gateway.record.update(
        {
            **{"resourceType": "Group", "id": "deid-cohort", "type": "person", "actual": True},
            "member": [{"entity": {"reference": "Patient/deid-1"}}],
        }
    )
    return uid


@pytest.fixture(scope="module")
def source(gateway: Gateway) -> StoredStudies:
    settings = gateway.orthanc.settings
    token = operator_token(settings, None, "system/ImagingStudy.rs system/Group.r", expires_in_s=600)

    def signed(request: httpx.Request) -> httpx.Request:
        # The gateway of these tests believes the tests' own issuer, the record that of the installation.
        own = bearer("system/ImagingStudy.rs") if request.url.path.startswith("/dicom-web") else None
        request.headers.update(own or {"Authorization": f"Bearer {token}"})
        return request

    http = httpx.Client(auth=signed, timeout=60, trust_env=False)
    return StoredStudies(http, f"{settings.internal_origin}/fhir", f"{settings.internal_origin}/dicom-web")


async def test_a_cohort_leaves_under_the_pseudonyms_of_the_records_export(
    gateway: Gateway, stored: str, source: StoredStudies, tmp_path: Path, module_database_url: str
):
    home = gateway.orthanc.settings.home
    add_project(home, "cohort")
    key = read_project_key(home, "cohort")
    project = Project("cohort", Profile(Options.of()), ProjectPseudonyms(key))
    table = ReidentificationTable(module_database_url, "cohort", key, "AES-256-GCM")
    (study,) = await asyncio.to_thread(source.cohort, "deid-cohort")
    assert study == await asyncio.to_thread(source.study, stored)
    report = await asyncio.to_thread(
        lambda: deidentify_all(
            source.instances(study), tmp_path, project, lambda _: Subject.of_record(study.patient), table.add
        )
    )
    assert (report.written, dict(report.held_back)) == (2, {})
    record = Pseudonymiser(key, "http://x/fhir", 2026)
    files = sorted(tmp_path.rglob("*.dcm"))  # noqa: ASYNC240
    assert len(files) == 2
    for path in files:
        result = dcmread(path)
        assert result.PatientID == record.pseudonym("Patient", "deid-1")
        assert result.StudyInstanceUID == record.uid(stored)
        assert b"QUIXOTEA" not in path.read_bytes()
        assert path.parts[-4] == result.PatientID
    link = await asyncio.to_thread(table.find, result.PatientID, WHO, {"reidentify"})
    assert link.original["PatientID"] == "DEID-1"
    assert link.original["Patient"] == "deid-1"
    link = await asyncio.to_thread(table.find, str(result.StudyInstanceUID), WHO, {"reidentify"})
    assert link.original == {"StudyInstanceUID": stored}


async def test_what_the_record_does_not_know_is_not_found(source: StoredStudies, stored: str):
    with pytest.raises(NotFoundError):
        await asyncio.to_thread(source.study, "1.2.3.999")
    with pytest.raises(NotFoundError):
        await asyncio.to_thread(source.cohort, "no-such-group")


class TestTable:
    """Sealed, bound to its place, behind a permission."""

    @pytest.fixture
    def table(self, gateway: Gateway, module_database_url: str) -> ReidentificationTable:
        table = ReidentificationTable(module_database_url, "sealed", b"key of sealed", "AES-256-GCM")
        table.add(
            [Link("patient", "pseudo-a", {"PatientID": "SECRET-A"}), Link("patient", "pseudo-b", {"PatientID": "B"})]
        )
        return table

    async def test_nothing_is_told_without_the_permission_and_the_refusal_is_audited(
        self, table: ReidentificationTable, module_database_url: str
    ):
        before = _events(module_database_url)
        with pytest.raises(ForbiddenError):
            table.find("pseudo-a", WHO, {"read-identified"})
        assert table.find("pseudo-a", WHO, {"reidentify"}).original == {"PatientID": "SECRET-A"}
        with pytest.raises(NotFoundError):
            table.find("pseudo-x", WHO, {"reidentify"})
        told = _events(module_database_url)[len(before) :]
        assert [one["outcome"] for one in told] == ["8", "0", "4"]
        assert {one["agent"][0]["altId"] for one in told} == {"surgeon"}
        assert "SECRET-A" not in json.dumps(told)
        assert "pseudo-a" not in json.dumps(told)

    async def test_the_database_alone_does_not_tell(self, table: ReidentificationTable, module_database_url: str):
        with psycopg.connect(module_database_url) as connection:
            rows = connection.execute(
                "SELECT sealed FROM dicomweb.reidentification WHERE project = 'sealed'"
            ).fetchall()
        assert rows
        assert not any(b"SECRET-A" in bytes(row[0]) for row in rows)
        other = ReidentificationTable(module_database_url, "sealed", b"another key", "AES-256-GCM")
        with pytest.raises(InteropError):
            other.find("pseudo-a", WHO, {"reidentify"})

    async def test_values_cannot_be_exchanged(self, table: ReidentificationTable, module_database_url: str):
        with psycopg.connect(module_database_url) as connection:
            connection.execute(
                "UPDATE dicomweb.reidentification SET sealed = (SELECT sealed FROM dicomweb.reidentification"
                " WHERE project = 'sealed' AND pseudonym = 'pseudo-a')"
                " WHERE project = 'sealed' AND pseudonym = 'pseudo-b'"
            )
        with pytest.raises(InteropError):
            table.find("pseudo-b", WHO, {"reidentify"})


def _events(url: str) -> list[dict]:
    """Re-identifications in the outbox; the gateway sends it on, so this looks at both places' union by content."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT event FROM dicomweb.audit_outbox ORDER BY id").fetchall()
    events = [json.loads(row[0]) for row in rows]
    return [one for one in events if one["subtype"][0]["code"] == "reidentify"]


def test_the_report_says_what_was_done_and_nobodys_name(tmp_path: Path):
    from datetime import UTC, datetime

    from tests.builders.dicom import encoded

    project = Project("page", Profile(Options.of()), ProjectPseudonyms(b"k"))
    contents = [encoded(one) for one in series(2, patient_name="QUIXOTEA^ZWYPLKOR")]
    links: list[Link] = []
    report = deidentify_all([*contents, b"no DICOM"], tmp_path / "out", project, Subject.of_file, links.extend)
    content = report_content(report, project, datetime(2026, 11, 22, tzinfo=UTC))
    assert (content["read"], content["written"], content["no_dicom"], content["survivors"]) == (3, 2, 1, [])
    assert {link.kind for link in links} == {"patient", "study", "series", "instance"}
    write_report(tmp_path / "out", content)
    for name in ("report.html", "report.en.html", "report.json"):
        text = (tmp_path / "out" / name).read_text()
        assert "QUIXOTEA" not in text
        assert str(series(2)[0].StudyInstanceUID) not in text
    assert "去标识化核查报告" in report_page(content, "zh-CN")


def test_a_project_that_is_not_there_has_no_key(tmp_path: Path):
    for name in ("nobody", "../secrets", ""):
        with pytest.raises(InvalidRequestError):
            read_project_key(tmp_path, name)
    assert partial(add_project, tmp_path)("there")
    assert read_project_key(tmp_path, "there")


async def test_at_the_command_line_only_who_was_granted_it_gets_the_way_back(
    gateway: Gateway, module_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from typer.testing import CliRunner

    from foramen.cli import app
    from foramen.kernel.settings import get_settings
    from tests.builders.dicom import encoded

    def foramen(*arguments: str, stdin: str | None = None) -> Any:
        return CliRunner().invoke(app, list(arguments), input=stdin)

    def steps() -> None:
        source = tmp_path / "in"
        source.mkdir()
        (source / "a.dcm").write_bytes(encoded(series(1, patient_id="CLI-1", patient_name="QUIXOTEA^ZWYPLKOR")[0]))
        (source / "b.txt").write_text("no DICOM")
        assert foramen("deidentify", str(source), str(tmp_path / "out"), "--project", "nobody").exit_code != 0
        assert foramen("project", "add", "cli").exit_code == 0
        done = foramen("deidentify", str(source), str(tmp_path / "out"), "--project", "cli")
        assert done.exit_code == 0, done.output
        assert "1 written, 0 held back, 1 not DICOM" in done.output
        assert foramen("deidentify", str(source), str(tmp_path / "out"), "--project", "cli").exit_code != 0
        (result,) = (tmp_path / "out").rglob("*.dcm")
        assert result.stat().st_mode & 0o077 == 0
        pseudonym = str(dcmread(result).PatientID)
        made = foramen("user", "add", "deid.physician", "--role", "physician", "--password-stdin", stdin=PASSWORD)
        assert made.exit_code == 0, made.output
        ask = ("reidentify", pseudonym, "--project", "cli", "--user", "deid.physician")
        refused = foramen(*ask)
        assert isinstance(refused.exception, ForbiddenError)
        assert "CLI-1" not in refused.output
        granted = foramen("user", "grant", "deid.physician", "reidentify", "--reason", "SYNTHETIC")
        assert granted.exit_code == 0, granted.output
        assert json.loads(foramen(*ask).output)["PatientID"] == "CLI-1"
        researcher = foramen(
            "user", "add", "deid.researcher", "--role", "researcher", "--password-stdin", stdin=PASSWORD
        )
        assert researcher.exit_code == 0, researcher.output
        assert foramen("user", "grant", "deid.researcher", "reidentify", "--reason", "SYNTHETIC").exit_code != 0

    monkeypatch.setenv("FORAMEN_HOME", str(gateway.orthanc.settings.home))
    monkeypatch.setenv("FORAMEN_DATABASE_URL", module_database_url)
    get_settings.cache_clear()
    try:
        await asyncio.to_thread(steps)
    finally:
        get_settings.cache_clear()
