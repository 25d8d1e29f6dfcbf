"""Several workers and many studies: shared, taken over, emergencies first, batches last."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ai_services.workflow.lease import alive
from foramen.kernel.identifiers import derived_uid, new_trace_id
from tests.builders.installation import Installation, wait_for
from tests.builders.prediction import source_datasets
from tests.builders.worker_runs import ONCE, StartWorker, WorkerProcess

pytestmark = pytest.mark.system


def test_two_workers_share_the_work_and_never_do_it_twice(system: Installation, start_worker: StartWorker) -> None:
    studies = [system.new_study() for _ in range(3)]
    workers = [start_worker(), start_worker()]
    for study in studies:
        assert system.ended_task(study)["status"] == "completed"
        assert system.results(study) == ONCE
    assert workers[0].started_runs == 3


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_worker_s_study_goes_to_another_and_is_written_once(
    system: Installation, start_worker: StartWorker, fate: signal.Signals
) -> None:
    """Killed, or cut off for a while: then it comes back in the middle of its run, and must write nothing more."""
    study = system.new_study()
    lost = start_worker(SLOW_S="6", FORAMEN_WORKER_LEASE_S="1")
    wait_for(lambda: lost.started_runs == 1, 30, "the run")
    first = system.task(study)
    start_worker(FORAMEN_WORKER_LEASE_S="1")
    wait_for(lambda: len(alive(system.database_url, 1)) == 2, 30, "the other worker")
    lost.process.send_signal(fate)
    try:
        ended = system.ended_task(study)
    finally:
        lost.process.send_signal(signal.SIGCONT)
    assert ended["status"] == "completed"
    assert ended["owner"] != first["owner"]
    assert lost.started_runs == 2
    if fate == signal.SIGSTOP:
        log = system.settings.home / "worker.log"
        wait_for(lambda: "task lost" in log.read_text(encoding="utf-8"), 30, "the end of the lost run")
    assert system.results(study) == ONCE
    assert system.task(study)["meta"]["versionId"] == ended["meta"]["versionId"]


def test_a_study_that_loses_every_worker_is_answered_in_the_end(
    system: Installation, start_worker: StartWorker
) -> None:
    study = system.new_study()
    lost: list[WorkerProcess] = []
    for number in (1, 2, 3):
        lost.append(start_worker(SLOW_S="60", FORAMEN_WORKER_LEASE_S="1"))
        wait_for(lambda: lost[0].started_runs == number, 30, "the run")  # noqa: B023  waited for at once
        lost[-1].process.send_signal(signal.SIGSTOP)  # not killed: the next one would come back as the same worker
    start_worker(FORAMEN_WORKER_LEASE_S="1")
    try:
        task = system.ended_task(study)
    finally:
        for worker in lost:
            worker.kill()
    assert task["status"] == "failed"
    assert task["statusReason"]["coding"][0]["code"] == "worker-lost"
    assert system.results(study)["Observation"] == 0


def test_an_emergency_goes_before_what_waited_longer(
    system: Installation, start_worker: StartWorker, tmp_path: Path
) -> None:
    studies = [system.new_study() for _ in range(2)]
    emergency = derived_uid("test", new_trace_id())
    slices = source_datasets(study_instance_uid=emergency, patient_id=system.new_patient())
    for dataset in slices:
        dataset.RequestedProcedurePriority = "STAT"
    system.store(slices)
    studies.append(emergency)
    assert [system.task(study).get("priority") for study in studies] == [None, None, "stat"]
    worker = start_worker(FORAMEN_WORKER_RUNS="1")
    for study in studies:
        assert system.ended_task(study)["status"] == "completed"
    ran = [line.split()[-1] for line in worker.runs.read_text(encoding="utf-8").splitlines()]
    assert ran[0] == studies[2]


def test_a_batch_waits_behind_live_work_and_goes_on_after_a_kill(
    system: Installation, start_worker: StartWorker, foramen: Any, tmp_path: Path
) -> None:
    first = start_worker()
    studies = [system.new_study() for _ in range(2)]
    tasks = [system.ended_task(study) for study in studies]
    first.stop()
    members = [{"entity": task["for"]} for task in tasks]
    response = system.http.put(
        "/fhir/Group/batch",
        json={"resourceType": "Group", "id": "batch", "type": "person", "actual": True, "member": members},
        headers={"Content-Type": "application/fhir+json"},
    )
    assert response.status_code in (200, 201), response.text

    def command(*options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "foramen", "model", "run", *options],
            env=system.environment, stdout=subprocess.PIPE, stderr=(tmp_path / "run.log").open("ab"), text=True,
        )  # fmt: skip

    said = partial(foramen, "model", "run", only_stdout=True)
    assert said("--cohort", "Group/batch") == "2 skipped: already-answered\n"
    again = ("--cohort", "Group/batch", "--again", "--window", "1")
    killed = command(*again)
    wait_for(lambda: "requested" in {system.task(study)["status"] for study in studies}, 60, "a Task of the batch")
    killed.kill()
    killed.communicate(timeout=10)
    live = system.new_study()
    system.task(live)
    worker = start_worker(FORAMEN_WORKER_RUNS="1")
    following = command(*again)
    told, _ = following.communicate(timeout=120)
    assert (told, following.returncode) == ("2 completed\n", 0)
    ran = [line.split()[-1] for line in worker.runs.read_text(encoding="utf-8").splitlines()[2:]]
    assert ran[0] == live
    assert sorted(ran[1:]) == sorted(studies)  # each once, whoever was killed
    for study in studies:
        assert system.results(study) == ONCE
        assert "performerType" not in system.task(study)
    (tmp_path / "list").write_text(f"{live}\n1.2.3.4\n", encoding="utf-8")
    told = said("--studies", str(tmp_path / "list"), status=1)
    assert told == "1 refused: not-registered\n1 skipped: already-answered\n"
    patient, sent = system.new_patient(), derived_uid("test", "of a folder")
    for number, dataset in enumerate(source_datasets(study_instance_uid=sent, patient_id=patient)):
        dataset.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    assert said("--folder", str(tmp_path)) == "1 completed\n"
    assert system.results(sent) == ONCE
