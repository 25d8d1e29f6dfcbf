"""Parts die in the middle of the job: nothing acknowledged is lost, nothing is written twice."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime

import httpx
import pytest

from foramen.demo.cohort import cohort_bundle, demo_patients
from foramen.demo.studies import DemoStudy, phantom_study
from foramen.ingest.send import send_instances
from foramen.kernel.embedded_postgres import postgres_pid
from tests.builders.system import System, said, search, wait_for

pytestmark = pytest.mark.system


def prepare(client: httpx.Client, study: DemoStudy) -> str:
    people = demo_patients([study.patient_id])[:1]
    assert (
        client.post("/fhir", json=cohort_bundle(people, datetime.now(UTC).isoformat(timespec="seconds"))).status_code
        == 200
    )
    return people[0].logical_id


def send(system: System, study: DemoStudy) -> None:
    outcomes = send_instances(study.instances, "127.0.0.1", system.dicom_port, "FORAMEN")
    assert all(outcome.stored for outcome in outcomes)


def results(client: httpx.Client, patient: str) -> tuple[int, int, int]:
    """Reports, findings and options of a patient."""
    reports = search(client, f"DiagnosticReport?subject=Patient/{patient}")
    findings = search(client, f"Observation?subject=Patient/{patient}&_count=500")
    options = search(client, f"CarePlan?subject=Patient/{patient}&_count=100")
    return len(reports), len(findings), len(options)


def test_a_killed_worker_finishes_its_study_once(own_system: System) -> None:
    own_system.start()
    study = phantom_study("DEMO", 13)
    with own_system.client() as client:
        patient = prepare(client, study)
        send(own_system, study)
        wait_for(lambda: search(client, f"Task?patient=Patient/{patient}&status=in-progress"), 60, 0.02)
        os.kill(own_system.pid_of("worker"), signal.SIGKILL)
        wait_for(lambda: search(client, f"Task?patient=Patient/{patient}&status=completed"), 90)
        reports, findings, options = results(client, patient)
        assert reports == 1
        assert options >= 3
        identifiers = [
            item["identifier"][0]["value"]
            for item in search(client, f"Observation?subject=Patient/{patient}&_count=500")
        ]
        assert len(identifiers) == len(set(identifiers)) == findings

        send(own_system, study)
        os.kill(own_system.pid_of("worker"), signal.SIGKILL)
        wait_for(lambda: said(own_system, r"worker +ready again"), 60)
        wait_for(lambda: not search(client, "Task?status=requested,in-progress"), 60)
        assert results(client, patient) == (reports, findings, options)


def test_a_study_sent_while_the_web_is_down_arrives(own_system: System) -> None:
    own_system.start()
    study = phantom_study("DEMO", 12)
    with own_system.client() as client:
        patient = prepare(client, study)
        os.kill(own_system.pid_of("web"), signal.SIGSTOP)
        stopped = own_system.pid_of("web")
        send(own_system, study)
        os.kill(stopped, signal.SIGKILL)
        os.kill(own_system.pid_of("orthanc"), signal.SIGKILL)
        wait_for(lambda: said(own_system, r"web +ready again"), 60)
        wait_for(lambda: search(client, f"Task?patient=Patient/{patient}&status=completed"), 120)
        assert results(client, patient)[0] == 1


def test_the_database_may_restart(own_system: System) -> None:
    own_system.start()
    with own_system.client() as client:
        created = client.post("/fhir/Patient", json={"resourceType": "Patient", "active": True})
        assert created.status_code == 201
        pid = postgres_pid(own_system.home / "postgres")
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)
        wait_for(lambda: said(own_system, r"postgres +ready again"), 60)
        wait_for(lambda: client.get("/readyz").status_code == 200, 60)
        location = created.headers["location"]
        assert client.get(location).json()["active"] is True


def test_a_study_without_a_known_patient_waits_on_hold_and_grows(own_system: System) -> None:
    own_system.start()
    study = phantom_study("DEMO", 13)
    with own_system.client() as client:
        part = DemoStudy(study.name, study.patient_id, study.study_instance_uid, study.instances[:-3])
        send(own_system, part)
        held = wait_for(lambda: search(client, "Task?status=on-hold"), 60)[0]
        assert held["statusReason"]["text"]
        assert "for" not in held
        patient = prepare(client, study)
        answer = client.post(f"/dicom-web/studies/{study.study_instance_uid}/register")
        assert answer.status_code in (200, 202), answer.text
        wait_for(lambda: search(client, f"Task?patient=Patient/{patient}&status=completed"), 90)
        first = search(client, f"DiagnosticReport?subject=Patient/{patient}")[0]

        send(own_system, study)
        wait_for(lambda: len(search(client, f"Task?patient=Patient/{patient}&status=completed")) == 2, 120)
        reports = {item["id"]: item for item in search(client, f"DiagnosticReport?subject=Patient/{patient}")}
        assert reports[first["id"]]["status"] == "cancelled"
        assert [item["status"] for key, item in reports.items() if key != first["id"]] == ["partial"]
        assert len(search(client, f"ImagingStudy?subject=Patient/{patient}")) == 1
