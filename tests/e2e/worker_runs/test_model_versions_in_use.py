"""Versions at work: a shadow beside, a recall, a release in the middle, and what is learnt from decisions."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from ai_services.models.recall import Marked, Recall, Written, mark, who_saw, written_by
from ai_services.models.stages import CHECKLIST, Stage
from ai_services.models.versions import ModelRegistry
from foramen.kernel.fhir_client import FhirClient
from terminology.codes import MODEL_RECALLED
from tests.builders.installation import Installation, wait_for
from tests.builders.model_package import model_package
from tests.builders.prediction import MODEL
from tests.builders.worker_runs import ONCE, StartWorker, report_of
from tests.e2e.learning_from_use import learn_from_use

pytestmark = pytest.mark.system


def test_a_shadow_runs_beside_and_a_recall_finds_marks_and_names(
    system: Installation, start_worker: StartWorker, tmp_path: Path
) -> None:
    registry = ModelRegistry(system.database_url, system.settings.home)
    registry.register(model_package(tmp_path / "next", "9.0.0"), "dr-li", "trained on more")
    shadow = registry.move("lumbar_mr", "9.0.0", Stage.SHADOW, "dr-li", "beside")
    study = system.new_study()
    start_worker()
    task = system.ended_task(study)
    report = report_of(system, task)
    # The shadow answered the same study, and nothing of it is in the record.
    (run,) = [item for item in registry.shadow_runs("lumbar_mr", "9.0.0") if item["study_instance_uid"] == study]
    assert run["comparison"]["disc_dice"] == 1.0
    assert run["comparison"]["pfirrmann"]["differ"] == []
    assert system.results(study) == ONCE
    registry.move("lumbar_mr", shadow.version, Stage.RETIRED, "dr-li", "seen enough")

    told: list[Marked] = []

    async def recall() -> tuple[list[Written], dict[str, set[str]]]:
        headers = {"Authorization": system.http.headers["Authorization"]}
        async with httpx.AsyncClient(headers=headers) as http:
            fhir = FhirClient(f"{system.settings.origin}/fhir", http)
            runs = [item async for item in written_by(fhir, [MODEL.sha256])]
            own = [item for item in runs if f"DiagnosticReport/{report['id']}" in "".join(item.targets)]
            for item in own:
                await mark(fhir, item, Recall("dr-li", "grades too high", "2026-11-23T10:00:00Z"), told.append)
                await mark(fhir, item, Recall("dr-wu", "once more", "2026-11-23T11:00:00Z"), told.append)
            assert [item async for item in written_by(fhir, [MODEL.sha256, "00" * 32])] == []
            return own, await who_saw(fhir, [f"DiagnosticReport/{report['id']}"])

    runs, seen = asyncio.run(recall())
    assert len(runs) == 1
    first, second = told[: len(told) // 2], told[len(told) // 2 :]
    assert {item.done for item in second} == {"already"}
    assert {item.reference for item in first} == {item.reference for item in second}
    marked = system.http.get(f"/fhir/DiagnosticReport/{report['id']}").json()
    assert marked["status"] == "cancelled"
    assert MODEL_RECALLED.coding() in marked["meta"]["tag"]
    assert {item.done for item in first if item.reference.startswith("Observation/")} == {"closed"}
    # Worklists find the Task, which stays completed, among what was recalled.
    recalled = f"{MODEL_RECALLED.system}|{MODEL_RECALLED.code}"
    query = {"business-status": recalled, "patient": task["for"]["reference"]}  # others are recalled by other tests
    by_task = system.http.get("/fhir/Task", params=query).json()["entry"]
    assert [(item["resource"]["id"], item["resource"]["status"]) for item in by_task] == [(task["id"], "completed")]
    # Who, when and why stand in the record, once, on everything that was marked.
    provenances = system.http.get(f"/fhir/Provenance?target=DiagnosticReport/{report['id']}").json()["entry"]
    (stated,) = [item["resource"] for item in provenances if item["resource"].get("reason")]
    assert stated["agent"][0]["who"]["display"] == "dr-li"
    assert (stated["reason"][0]["text"], stated["recorded"]) == ("grades too high", "2026-11-23T10:00:00Z")
    assert stated["activity"]["coding"] == [MODEL_RECALLED.coding()]
    assert {item["reference"] for item in stated["target"]} == {item.reference for item in first}
    # The report was read by this test, under the account of its token.
    assert any(f"DiagnosticReport/{report['id']}" in references for references in seen.values())


def test_what_people_decide_is_drawn_queued_and_watched_by_commands(
    system: Installation, start_worker: StartWorker, tmp_path: Path
) -> None:
    studies = [system.new_study(), system.new_study()]
    start_worker()
    reports = [report_of(system, system.ended_task(study)) for study in studies]
    learn_from_use(system, studies, reports, tmp_path)


def test_a_release_is_warmed_up_while_a_study_runs_and_changes_nothing_for_it(
    system: Installation, start_worker: StartWorker, tmp_path: Path
) -> None:
    registry = ModelRegistry(system.database_url, system.settings.home)
    before = registry.current("lumbar_mr")
    assert before is not None
    first = system.new_study()
    worker = start_worker(SLOW_S="8", FORAMEN_WORKER_WARM_UP="true")
    wait_for(lambda: worker.started_runs == 1, 30, "the run")
    registry.register(model_package(tmp_path / "next", "9.5.0"), "dr-li", "trained on more")
    registry.move("lumbar_mr", "9.5.0", Stage.SHADOW, "dr-li", "beside")
    registry.move("lumbar_mr", "9.5.0", Stage.RELEASED, "dr-li", "looked at", CHECKLIST)
    try:
        log = system.settings.home / "worker.log"
        warm = re.compile(r'.*"9\.5\.0".*"model warmed up"|.*"model warmed up".*"9\.5\.0"')
        wait_for(lambda: warm.search(log.read_text(encoding="utf-8")), 30, "the new model")
        assert system.task(first)["status"] == "in-progress"
        assert system.ended_task(first)["status"] == "completed"
        second = system.new_study()
        assert system.ended_task(second)["status"] == "completed"
        lines = [line.split() for line in worker.runs.read_text(encoding="utf-8").splitlines()]
        assert [line[1:] for line in lines] == [[before.version, first], ["9.5.0", second]]
    finally:
        registry.roll_back("lumbar_mr", "dr-li", "as it was")
