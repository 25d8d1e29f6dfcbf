"""Corrections become labels, studies are queued for annotation, a version is watched: on the real record.

Everything is SYNTHETIC. The server separates institutions and applies Consents.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from ai_services.monitoring.reference import read_reference, written
from ai_services.monitoring.run import SCOPES as WATCH_SCOPES
from ai_services.monitoring.run import observe, results_of
from ai_services.monitoring.run import publish as publish_watch
from ai_services.monitoring.thresholds import read_thresholds
from ai_services.monitoring.watch import samples_of
from ai_services.prediction import Finding, ModelIdentity
from ai_services.training.active_learning.queue import SCOPES as QUEUE_SCOPES
from ai_services.training.active_learning.queue import Queue, build, publish
from ai_services.training.active_learning.tasks import Changes
from ai_services.training.dataset_version import DatasetError, compare, load
from ai_services.training.labels.consent import ConsentRule
from ai_services.training.labels.draw import SCOPES, Drawn, draw, read, write
from foramen.kernel.crypto.pseudonyms import ProjectPseudonyms
from foramen.kernel.errors import ForbiddenError
from foramen.kernel.fhir_client import FhirClient
from terminology.codes import ANNOTATE
from tests.builders.decisions import DOCTOR, Study, decide, patient_of, research_consent, study_of
from tests.builders.prediction import MODEL
from tests.builders.tokens import ORIGIN, bearer
from tests.contract.fhir.api import Api, running

KEY = ProjectPseudonyms(b"SYNTHETIC key of a project")
TODAY = date(2026, 11, 1)
ENGINEER = {"sub": "engineer", "client_id": "foramen-cli", "institution": "north"}


class Ward:
    """The record of this module: its server, and the studies by the name of their patient."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.studies: dict[str, Study] = {}
        self.changes: Changes | None = None

    def client(self, scopes: str = SCOPES, **claims: Any) -> FhirClient:
        """The record as somebody's token shows it."""
        transport = self.api.http._transport
        return FhirClient(
            f"{ORIGIN}/fhir", httpx.AsyncClient(transport=transport, headers=bearer(scopes, **(claims or ENGINEER)))
        )

    async def labels(self, **claims: Any) -> Drawn:
        return await draw(self.client(SCOPES, **claims), KEY, ConsentRule.PERMITTED, TODAY)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ward(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ward]:
    """Patients of two institutions; who permits research, who does not, who denies it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("FORAMEN_INSTITUTIONS", "separate")
        patch.setenv("FORAMEN_FHIR_CONSENT", "true")
        async with running(module_database_url) as (_, client):
            ward = Ward(Api(client, client_id="service", sub="service"))
            for number, name in enumerate(("agreed", "amended", "taken-back", "open", "silent", "denies", "south")):
                institution = "south" if name == "south" else "north"
                patient = patient_of(f"pat-{name}", institution=institution)
                ward.studies[name] = await study_of(ward.api, patient, str(number + 1))
                if name not in ("silent", "denies"):
                    await ward.api.create(research_consent(f"Patient/pat-{name}"))
            await ward.api.create(research_consent("Patient/pat-denies"))
            await ward.api.create(research_consent("Patient/pat-denies", "deny"))
            amendments = {("F01", "L4-L5"): "extrusion", ("F06", "L4-L5"): "5"}
            await decide(ward.api, ward.studies["amended"], "amend", amendments)
            await decide(ward.api, ward.studies["taken-back"], "reject")
            for name in ("agreed", "silent", "denies", "south"):
                await decide(ward.api, ward.studies[name], "verify")
            yield ward


async def test_corrections_and_agreement_become_rows_and_nothing_else_does(ward: Ward) -> None:
    drawn = await ward.labels()
    by_patient: dict[str, list[dict[str, Any]]] = {}
    for row in drawn.rows:
        by_patient.setdefault(row.patient, []).append(row.as_json())
    names = {name: KEY.pseudonym("Patient", f"pat-{name}") for name in ward.studies}
    assert set(by_patient) == {names["agreed"], names["amended"], names["taken-back"]}
    assert drawn.reports == 3
    # Neither consents nor walls are passed: whoever did not permit, denied, or belongs elsewhere is not there.
    assert drawn.left_out["no-research-consent"] == 2
    assert {row["verdict"] for row in by_patient[names["agreed"]]} == {"agreed"}
    assert {row["verdict"] for row in by_patient[names["taken-back"]]} == {"rejected"}
    assert {row["after"] for row in by_patient[names["taken-back"]] if row["after"] is None} == {None}
    changed = {
        (row["finding"], row["level"]): row for row in by_patient[names["amended"]] if row["verdict"] != "agreed"
    }
    assert set(changed) == {("F01", "L4-L5"), ("F06", "L4-L5")}
    row = changed["F06", "L4-L5"]
    assert (row["before"]["code"], row["after"]["code"], row["verdict"]) == ("4", "5", "corrected")
    assert row["confidence"] == 0.66  # The model's, although the amended Observation has none any more.
    assert row["model"] == {"name": MODEL.name, "version": MODEL.version, "sha256": MODEL.sha256}
    assert row["annotator"] == KEY.pseudonym(*DOCTOR.split("/"))
    assert row["study"] == KEY.uid(ward.studies["amended"].study_instance_uid)
    assert row["decided"] != "2026-10-02"
    assert row["synthetic"] is True


async def test_a_token_that_may_not_read_consents_draws_nothing(ward: Ward) -> None:
    narrow = " ".join(scope for scope in SCOPES.split() if "Consent" not in scope)
    with pytest.raises(ForbiddenError):
        await draw(ward.client(narrow, **ENGINEER), KEY, ConsentRule.PERMITTED, TODAY)


async def test_a_token_of_another_institution_draws_its_own_patients(ward: Ward) -> None:
    drawn = await ward.labels(**{**ENGINEER, "institution": "south"})
    assert {row.patient for row in drawn.rows} == {KEY.pseudonym("Patient", "pat-south")}
    nobody = await ward.labels(sub="engineer", client_id="foramen-cli")
    assert nobody.rows == []


async def test_a_consent_that_ended_does_not_permit(ward: Ward) -> None:
    await ward.api.create(research_consent("Patient/pat-silent", period={"end": "2026-10-31"}))
    then = await draw(ward.client(), KEY, ConsentRule.PERMITTED, date(2026, 10, 31))
    now = await draw(ward.client(), KEY, ConsentRule.PERMITTED, TODAY)
    silent = KEY.pseudonym("Patient", "pat-silent")
    assert silent in {row.patient for row in then.rows}
    assert silent not in {row.patient for row in now.rows}


async def test_decisions_after_an_instant_do_not_count(ward: Ward) -> None:
    early = await draw(ward.client(), KEY, ConsentRule.PERMITTED, TODAY, until="2026-10-02T09:29:59Z")
    assert early.rows == []
    assert early.left_out["no-signature"] == 5


async def test_the_version_is_immutable_the_same_bytes_again_and_holds_no_person(ward: Ward, tmp_path: Path) -> None:
    drawn = await ward.labels()
    how: dict[str, Any] = {
        "name": "corrections",
        "licence": "internal",
        "by": "engineer",
        "project": "spine",
        "rule": ConsentRule.PERMITTED,
        "basis": "SYNTHETIC",
    }
    manifest, version = write(tmp_path / "one", drawn, **how)
    assert load(manifest) == version
    assert compare(tmp_path / "one", version).none
    _, again = write(tmp_path / "two", await ward.labels(), **how)
    assert [file.sha256 for file in again.files] == [file.sha256 for file in version.files]
    assert len(read(tmp_path / "one")) == len(drawn.rows)
    with pytest.raises(DatasetError):
        write(tmp_path / "one", drawn, **how)
    text = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "one").rglob("*") if path.is_file())
    for name in ("agreed", "amended", "taken-back"):
        for value in (f"pat-{name}", f"合成pat-{name}", f"SYN-MRN-pat-{name}", "138-0000", "1961-07-13"):
            assert value not in text
        assert ward.studies[name].study_instance_uid not in text
        assert ward.studies[name].report.split("/")[1] not in text
    assert "张三" not in text
    assert "合成医生" not in text
    assert "dr-synthetic" not in text
    about = json.loads((tmp_path / "one" / "about.json").read_text(encoding="utf-8"))
    assert about["synthetic"] is True
    assert about["check"]["values_looked_for"] > 20


async def test_a_person_in_the_text_stops_the_whole_write(ward: Ward, tmp_path: Path) -> None:
    drawn = await ward.labels()
    drawn.rows[0] = replace(drawn.rows[0], level="1961-07-13")
    how = {"name": "corrections", "licence": "x", "by": "x", "project": "x", "basis": "x"}
    with pytest.raises(DatasetError, match="check found 1 "):
        write(tmp_path / "labels", drawn, rule=ConsentRule.PERMITTED, **how)
    assert not (tmp_path / "labels").exists()


async def queue_of(ward: Ward, **how: Any) -> Queue:
    fhir = ward.client(f"{SCOPES} {QUEUE_SCOPES}", **ENGINEER)
    made = await build(fhir, None, **{"rule": ConsentRule.PERMITTED, "on": TODAY, "limit": 10, "seed": 1, **how})
    ward.changes = await publish(fhir, made, seed=1, now="2026-11-01T08:00:00Z")
    return made


async def tasks_of(ward: Ward, status: str) -> list[dict[str, Any]]:
    found = await ward.api.get(f"/fhir/Task?code={ANNOTATE.system}|{ANNOTATE.code}&status={status}")
    return [item["resource"] for item in found.json().get("entry", [])]


async def test_the_queue_is_written_as_tasks_and_a_signature_takes_a_study_out(ward: Ward) -> None:
    unsure = [
        Finding("F01", "L4-L5", "bulge", confidence=0.36),
        Finding("F06", "L4-L5", "3", confidence=0.3, expected=3.1),
    ]
    sure = [
        Finding("F01", "L4-L5", "bulge", confidence=0.97),
        Finding("F06", "L4-L5", "3", confidence=0.96, expected=3.0),
    ]
    for name, number, findings in (("q-sure", "31", sure), ("q-unsure", "32", unsure), ("q-unasked", "33", unsure)):
        ward.studies[name] = await study_of(ward.api, patient_of(name, institution="north"), number, findings=findings)
    for name in ("q-sure", "q-unsure"):
        await ward.api.create(research_consent(f"Patient/{name}"))
    made = await queue_of(ward, diversity=0)
    reports = [item.report for item in made.wanted]
    # Neither who did not permit research nor another institution's patient is annotated.
    assert set(reports) == {ward.studies[name].report for name in ("open", "q-sure", "q-unsure")}
    assert reports[0] == ward.studies["q-unsure"].report
    assert reports[-1] == ward.studies["q-sure"].report
    tasks = {task["focus"]["reference"]: task for task in await tasks_of(ward, "requested")}
    assert set(tasks) == set(reports)
    first = tasks[reports[0]]
    assert first["input"][0]["valuePositiveInt"] == 1
    assert "置信度 0.30" in first["reasonCode"]["text"]
    assert "Pfirrmann grade at L4-L5 is unsure" in first["reasonCode"]["text"]

    # Again: nothing changes, no version is added.
    await queue_of(ward, diversity=0)
    assert ward.changes.entries == ()

    await decide(ward.api, ward.studies["q-unsure"], "amend", {("F06", "L4-L5"): "4"})
    made = await queue_of(ward, diversity=0)
    assert reports[0] not in {item.report for item in made.wanted}
    (finished,) = await tasks_of(ward, "completed")
    assert finished["focus"]["reference"] == reports[0]
    assert ward.changes.done == 1
    assert KEY.pseudonym("Patient", "q-unsure") in {row.patient for row in (await ward.labels()).rows}

    # Who looks again decides anew; a draw of an earlier time still says what was decided then.
    again = {("F06", "L4-L5"): "5"}
    await decide(ward.api, ward.studies["q-unsure"], "amend", again, recorded="2026-10-20T08:00:00Z")
    for until, grade in (("2026-10-10T00:00:00Z", "4"), (None, "5")):
        drawn = await draw(ward.client(), KEY, ConsentRule.PERMITTED, TODAY, until=until)
        own = [
            row for row in drawn.rows if row.patient == KEY.pseudonym("Patient", "q-unsure") and row.finding == "F06"
        ]
        assert [(row.before["code"], row.after["code"], row.confidence) for row in own] == [("3", grade, 0.3)]


FEW = {"patients": 8, "decided": 5, "cell": 3, "permutations": 199}
SINCE, MIDDLE, UNTIL = "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z", "2027-03-01T00:00:00Z"
WATCHED = ModelIdentity("lumbar-grading", "7.0.0", "cd" * 32)


async def test_a_version_is_watched_and_its_measure_report_is_written_once(ward: Ward, tmp_path: Path) -> None:
    """January is the reference; in February the grades rise, and who has scanner-less men overrides them."""
    limits = replace(read_thresholds(), **FEW)
    for number in range(20):
        late = number >= 10
        grade = 4 if late else 2
        findings = [
            Finding("F01", "L4-L5", "bulge", confidence=0.7),
            Finding("F06", "L4-L5", str(grade), confidence=0.6, expected=grade + number % 10 / 50),
        ]
        gender = "male" if number % 2 else "female"
        name = f"w-{number}"
        ward.studies[name] = await study_of(
            ward.api,
            patient_of(name, institution="north", gender=gender),
            str(100 + number),
            findings=findings,
            models=(MODEL, WATCHED),
            recorded=datetime(2027, 2 if late else 1, 3, tzinfo=UTC),
        )
        if late:
            kind = "amend" if gender == "male" else "verify"
            amendments = {("F06", "L4-L5"): "2"} if kind == "amend" else {}
            await decide(ward.api, ward.studies[name], kind, amendments, recorded="2027-02-10T08:00:00Z")
    fhir = ward.client(WATCH_SCOPES, sub="foramen-cli", client_id="foramen-cli")
    weights = [MODEL.sha256, WATCHED.sha256]
    january, _ = await results_of(fhir, weights, (SINCE, MIDDLE))
    assert len(january) == 10
    file = tmp_path / "reference.json"
    file.write_bytes(written("lumbar_mr", "7.0.0", (SINCE, MIDDLE), samples_of(january)))
    known = read_reference(file, "lumbar_mr", "7.0.0")
    model = ("lumbar_mr", "7.0.0", weights)

    watched = await observe(fhir, None, model, (MIDDLE, UNTIL), known, limits)
    assert watched.reports == 10
    told = {item.name: item.outcome for item in watched.drift}
    assert told["grade"] == told["grade-expected"] == "alarm"
    assert told["morphology"] == "steady"
    assert told["canal"] == "too-few"
    assert (watched.overrides.overridden, watched.overrides.decided) == (5, 10)
    assert watched.groups["sex"]["male"].value == 1.0
    assert watched.groups["sex"]["male"].outcome == "alarm"
    assert watched.groups["site"]["north"].decided == 10
    assert watched.synthetic

    reference, wrote = await publish_watch(fhir, watched, "2027-03-01T08:00:00Z")
    assert wrote
    again = await observe(fhir, None, model, (MIDDLE, UNTIL), known, limits)
    assert again == watched
    assert await publish_watch(fhir, again, "2027-03-02T08:00:00Z") == (reference, False)
    stored = (await ward.api.get(f"/fhir/{reference}")).json()
    assert stored["meta"]["versionId"] == "1"
    assert stored["group"][0]["measureScore"]["value"] == 0.5
    assert len(await ward.api.ids("MeasureReport")) == len(await ward.api.ids("Measure")) == 1
    text = json.dumps(stored)
    assert "w-1" not in text
    assert "合成" not in text
    # Decisions of February are none of January's; a period with nothing in it cannot be told.
    before = await observe(fhir, None, model, (SINCE, MIDDLE), known, limits)
    assert before.overrides.outcome == "too-few"
    empty = await observe(fhir, None, model, (UNTIL, "2027-04-01T00:00:00Z"), known, limits)
    assert (empty.outcome, empty.reports) == ("too-few", None)
