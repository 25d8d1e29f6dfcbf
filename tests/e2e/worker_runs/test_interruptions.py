"""Kill -9, and record, archive or database away: the study is answered, and written once."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import psycopg
import pytest

from foramen.kernel.embedded_postgres import start_postgres, stop_postgres
from tests.builders.installation import Installation, installation, wait_for
from tests.builders.worker_runs import ONCE, StartWorker, WorkerProcess, report_of, run_record_of

pytestmark = pytest.mark.system


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


def test_what_another_process_publishes_names_the_settings_that_it_was_computed_with(
    system: Installation, start_worker: StartWorker
) -> None:
    """Killed after the models ran; what publishes later runs with other settings, and fetches no pixels again."""
    study = system.new_study()
    system.task(study)
    first = start_worker(FORAMEN_WORKER_THREADS="3", SLOW_S="2")
    wait_for(lambda: first.started_runs == 1, 30, "the run")
    system.orthanc.stop()
    try:
        spooled = system.settings.home / "spool"
        wait_for(lambda: list(spooled.glob("*/prediction.npz")), 30, "the prediction")
        first.kill()
    finally:
        system.orthanc.start()
    second = start_worker(FORAMEN_WORKER_THREADS="1")
    record = run_record_of(system, report_of(system, system.ended_task(study)))
    assert second.started_runs == 1, "the models did not run again"
    assert json.loads(record.settings)["threads"] == 3
    assert len(record.inputs) == 5
    assert second.asked("GET", f"/dicom-web/studies/{study}/series/{study}.1") == 1


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
