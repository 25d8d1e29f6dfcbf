"""The worker against the real record, identity, DICOMweb gateway and Orthanc: answers, outages, kill -9, replay."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from foramen.kernel.embedded_postgres import start_postgres, stop_postgres
from terminology import systems
from tests.builders.installation import Installation, installation, wait_for
from tests.builders.prediction import findings, source_datasets

pytestmark = pytest.mark.system
ONCE = {
    "Observation": len(findings()) + 1,
    "DiagnosticReport": 1,
    "CarePlan": 13,
    "RequestGroup": 1,
    "GuidanceResponse": 1,
    "Provenance": 1,
    "SEG": 1,
    "SR": 1,
}


@pytest.fixture(scope="module")
def system(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("installation"), module_database_url) as running:
        yield running


class WorkerProcess:
    """A worker process that a test starts, kills and stops."""

    def __init__(self, system: Installation, runs: Path, **environment: str) -> None:
        self.runs = runs
        with (system.settings.home / "worker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.builders.worker_process"],
                env={**system.environment, "RUNS_FILE": str(runs), **environment},
                cwd=Path(__file__).parents[2],
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(20)

    @property
    def started_runs(self) -> int:
        return len(self.runs.read_text(encoding="utf-8").splitlines()) if self.runs.exists() else 0


StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def start_worker(system: Installation, tmp_path: Path) -> Iterator[StartWorker]:
    started: list[WorkerProcess] = []

    def start(**environment: str) -> WorkerProcess:
        started.append(WorkerProcess(system, tmp_path / "runs", **environment))
        return started[-1]

    yield start
    for worker in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.stop()


def report_of(system: Installation, task: dict[str, Any]) -> dict[str, Any]:
    reference = next(item["valueReference"]["reference"] for item in task["output"])
    response = system.http.get(f"/fhir/{reference}")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def test_a_study_is_analysed_and_published_once(system: Installation, start_worker: StartWorker) -> None:
    study = system.new_study()
    worker = start_worker()
    task = system.ended_task(study)
    assert task["status"] == "completed"
    report = report_of(system, task)
    assert report["status"] == "partial"
    assert system.results(study) == ONCE
    assert worker.started_runs == 1
    assert list((system.settings.home / "spool").glob("*")) == []
    assert worker.stop() == 0


def test_own_results_do_not_start_another_run(system: Installation, start_worker: StartWorker) -> None:
    study = system.new_study()
    worker = start_worker()
    system.ended_task(study)
    with pytest.raises(AssertionError):
        wait_for(lambda: len(system.tasks(study)) > 1, 4)
    assert worker.started_runs == 1


def test_kill_9_in_the_middle_is_finished_after_a_restart_and_nothing_is_written_twice(
    system: Installation, start_worker: StartWorker
) -> None:
    study = system.new_study()
    first = start_worker(SLOW_S="30")
    wait_for(lambda: first.started_runs == 1, 30, "the run")
    first.kill()
    assert system.task(study)["status"] == "in-progress"
    second = start_worker()
    task = system.ended_task(study)
    assert task["status"] == "completed"
    assert second.started_runs == 2
    assert system.results(study) == ONCE


def test_a_claim_whose_run_was_never_started_is_taken_up(system: Installation, start_worker: StartWorker) -> None:
    """Killed between claim and start, or the runs' database lost: the Task says whose it is."""
    study = system.new_study()
    first = start_worker(SLOW_S="30")
    wait_for(lambda: first.started_runs == 1, 30, "the run")
    first.kill()
    with psycopg.connect(system.database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA dbos CASCADE")
    start_worker()
    assert system.ended_task(study)["status"] == "completed"
    assert system.results(study) == ONCE


def test_results_lost_between_transaction_and_answer_are_not_written_again(
    system: Installation, start_worker: StartWorker
) -> None:
    """Everything was published, then the memory of it was lost: the whole run again changes nothing."""
    study = system.new_study()
    worker = start_worker()
    task = system.ended_task(study)
    worker.stop()
    with psycopg.connect(system.database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA dbos CASCADE")
    again = {**task, "status": "requested"}
    response = system.http.put(
        f"/fhir/Task/{task['id']}", json=again, headers={"Content-Type": "application/fhir+json"}
    )
    assert response.status_code == 200, response.text
    start_worker()
    ended = system.ended_task(study)
    assert ended["output"] == task["output"]
    assert system.results(study) == ONCE


def test_a_declined_study_says_why_in_both_languages(system: Installation, start_worker: StartWorker) -> None:
    study = system.new_study()
    start_worker(PIPELINE="declines")
    task = system.ended_task(study)
    assert task["status"] == "rejected"
    reason = task["statusReason"]
    assert reason["coding"][0] == {
        "system": systems.TASK_REASON,
        "code": "not-lumbar-mr",
        "display": "no lumbar spine",
    }
    assert reason["text"] == "未见腰椎"
    assert system.results(study)["Observation"] == 0


def test_a_fault_of_ours_says_the_trace_id_and_nothing_else(system: Installation, start_worker: StartWorker) -> None:
    study = system.new_study()
    start_worker(PIPELINE="breaks")
    task = system.ended_task(study)
    assert task["status"] == "failed"
    trace = next(item["value"] for item in task["identifier"] if item["system"] == systems.IDENTIFIER_TRACE)
    text = task["statusReason"]["text"]
    assert trace in text
    assert "ZeroDivision" not in text
    assert "secret" not in str(task)


def test_archive_down_for_a_moment_is_waited_for(system: Installation, start_worker: StartWorker) -> None:
    study = system.new_study()
    system.task(study)
    system.orthanc.stop()
    worker = start_worker(ATTEMPTS="20")
    wait_for(lambda: system.task(study)["status"] == "in-progress", 30, "the claim")
    system.orthanc.start()
    assert system.ended_task(study)["status"] == "completed"
    assert worker.started_runs == 1


def test_archive_down_for_long_is_a_failure_with_a_reason(system: Installation, start_worker: StartWorker) -> None:
    study = system.new_study()
    system.task(study)
    system.orthanc.stop()
    try:
        start_worker(ATTEMPTS="2")
        task = system.ended_task(study)
        assert task["status"] == "failed"
        assert task["statusReason"]["coding"][0]["code"] == "upstream-unavailable"
    finally:
        system.orthanc.start()


def test_record_down_is_waited_for_quietly(system: Installation, start_worker: StartWorker) -> None:
    study = system.new_study()
    system.task(study)
    system.stop_web()
    start_worker()
    with pytest.raises(AssertionError):
        wait_for(lambda: None, 2)
    system.start_web()
    assert system.ended_task(study)["status"] == "completed"
    log = (system.settings.home / "worker.log").read_text(encoding="utf-8")
    assert log.count("Traceback") == log.count("ZeroDivisionError: secret")


def test_a_task_cancelled_by_a_person_is_left_alone(system: Installation, start_worker: StartWorker) -> None:
    study = system.new_study()
    worker = start_worker(SLOW_S="3")
    wait_for(lambda: worker.started_runs == 1, 30, "the run")
    task = system.task(study)
    response = system.http.put(
        f"/fhir/Task/{task['id']}",
        json={**task, "status": "cancelled"},
        headers={"Content-Type": "application/fhir+json"},
    )
    assert response.status_code == 200
    with pytest.raises(AssertionError):
        wait_for(lambda: system.results(study)["DiagnosticReport"], 6)
    assert system.task(study)["status"] == "cancelled"


def test_a_grown_study_supersedes_what_nobody_verified(system: Installation, start_worker: StartWorker) -> None:
    study = system.new_study()
    start_worker()
    first = report_of(system, system.ended_task(study))
    patient = first["subject"]["reference"].split("/")[1]
    patient_id = system.http.get(f"/fhir/Patient/{patient}").json()["identifier"][0]["value"]
    system.store(source_datasets(6, study_instance_uid=study, patient_id=patient_id)[5:])
    wait_for(
        lambda: len(system.search(f"DiagnosticReport?patient={patient}&status=partial,cancelled")) == 2,
        60,
        "the second report",
    )
    statuses = {item["id"]: item["status"] for item in system.search(f"DiagnosticReport?patient={patient}")}
    assert statuses.pop(first["id"]) == "cancelled"
    assert list(statuses.values()) == ["partial"]
    assert len(system.search(f"Observation?patient={patient}&status=cancelled&_count=100")) == ONCE["Observation"]
    assert len(system.search(f"CarePlan?patient={patient}&status=revoked&_count=100")) == 13
    assert len(system.search(f"CarePlan?patient={patient}&status=draft&_count=100")) == 13


def test_two_workers_share_the_work_and_never_do_it_twice(system: Installation, start_worker: StartWorker) -> None:
    studies = [system.new_study() for _ in range(3)]
    workers = [start_worker(), start_worker()]
    for study in studies:
        assert system.ended_task(study)["status"] == "completed"
        assert system.results(study) == ONCE
    assert workers[0].started_runs == 3


def test_options_are_evaluated_again_when_answers_arrive(system: Installation, start_worker: StartWorker) -> None:
    study = system.new_study()
    start_worker()
    report = report_of(system, system.ended_task(study))
    subject = report["subject"]
    answers = {"redflag.ces": True, "exam.motor": 4}
    items = [
        {"linkId": name, "answer": [{"valueBoolean" if value is True else "valueInteger": value}]}
        for name, value in answers.items()
    ]
    response = system.http.post(
        "/fhir/QuestionnaireResponse",
        json={
            "resourceType": "QuestionnaireResponse",
            "questionnaire": systems.INTAKE_QUESTIONNAIRE,
            "status": "completed",
            "subject": subject,
            "authored": "2026-11-22T09:00:00Z",
            "item": items,
        },
        headers={"Content-Type": "application/fhir+json"},
    )
    assert response.status_code == 201, response.text
    task_id = system.ask_for_options(report)
    task = wait_for(
        lambda: found if (found := system.http.get(f"/fhir/Task/{task_id}").json())["status"] == "completed" else None,
        30,
        "the answer",
    )
    group = system.http.get(f"/fhir/{task['output'][0]['valueReference']['reference']}").json()
    holds = [item["valueString"] for item in group["extension"] if item["url"] == systems.EXTENSION_HOLD]
    assert any(hold.startswith("R01:") for hold in holds)
    assert group["priority"] == "urgent"
    plans = system.search(f"CarePlan?subject={subject['reference']}&_count=100")
    assert sorted({plan["status"] for plan in plans}) == ["draft", "revoked"]
    drafts = [plan for plan in plans if plan["status"] == "draft"]
    assert len(drafts) == 13
    conservative = next(plan for plan in drafts if plan["category"][0]["coding"][0]["code"] == "O01")
    verdict = next(item for item in conservative["extension"] if item["url"] == systems.EXTENSION_VERDICT)
    assert verdict["valueCode"] == "contraindicated"


def test_an_idle_worker_is_small(system: Installation, start_worker: StartWorker) -> None:
    worker = start_worker(PIPELINE="real")
    wait_for(lambda: (system.settings.home / "run" / "worker").exists(), 20, "the heartbeat")
    resident_mb = psutil.Process(worker.process.pid).memory_info().rss / 1e6
    assert resident_mb < 150


def test_database_down_in_the_middle_is_survived(tmp_path: Path) -> None:
    """The record and the memory of the run are gone at once; both come back, and the study is answered once."""
    folder = Path(tempfile.mkdtemp(prefix="foramen-test-pg-"))
    folder.chmod(0o755)
    url = start_postgres(folder / "data")
    try:
        with installation(tmp_path, url) as system:
            study = system.new_study()
            worker = WorkerProcess(system, tmp_path / "runs", SLOW_S="2", ATTEMPTS="20")
            try:
                wait_for(lambda: worker.started_runs == 1, 60, "the run")
                stop_postgres(folder / "data")
                with pytest.raises(AssertionError):
                    wait_for(lambda: worker.process.poll() is not None, 4, "nothing: the worker stays")
                start_postgres(folder / "data")
                assert system.ended_task(study, 120)["status"] == "completed"
                assert system.results(study) == ONCE
            finally:
                worker.stop()
    finally:
        stop_postgres(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)
