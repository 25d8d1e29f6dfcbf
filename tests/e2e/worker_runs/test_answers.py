"""A study is answered once: with its results, or with a reason in both languages."""

from __future__ import annotations

import psutil
import pytest

from ai_services.imaging.phantom import lumbar_phantom
from foramen.kernel.heartbeat import heartbeat_file
from foramen.kernel.identifiers import derived_uid, new_trace_id
from terminology import systems
from terminology.analysis_reasons import ANALYSIS_REASONS
from tests.builders.installation import ISSUER, Installation, wait_for
from tests.builders.mr_series import mr_series
from tests.builders.prediction import source_datasets
from tests.builders.worker_runs import ONCE, StartWorker, report_of

pytestmark = pytest.mark.system


def test_a_study_is_analysed_and_published_once(system: Installation, start_worker: StartWorker) -> None:
    study = system.new_study()
    worker = start_worker()
    task = system.ended_task(study)
    assert task["status"] == "completed"
    report = report_of(system, task)
    assert report["status"] == "partial"
    assert system.results(study) == ONCE
    assert worker.started_runs == 1
    assert worker.asked("GET", f"/dicom-web/studies/{study}/series/{study}.1") == 1, "the pixels are fetched once"
    assert worker.asked("GET", f"/dicom-web/studies/{study}/series/{study}.1/metadata") == 1
    assert list((system.settings.home / "spool").glob("*")) == []
    assert worker.stop() == 0


def test_own_results_do_not_start_another_run(system: Installation, start_worker: StartWorker) -> None:
    study = system.new_study()
    worker = start_worker()
    system.ended_task(study)
    with pytest.raises(AssertionError):
        wait_for(lambda: len(system.tasks(study)) > 1, 4)
    assert worker.started_runs == 1


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


def test_bad_images_are_refused_by_the_real_pipeline_with_their_reason(
    system: Installation, start_worker: StartWorker
) -> None:
    """One study that headers give away, one that only its pixels do: both Tasks say why, in both languages."""
    lacking, inverted = derived_uid("test", new_trace_id()), derived_uid("test", new_trace_id())
    slices = source_datasets(6, study_instance_uid=lacking, patient_id=system.new_patient())
    system.store(slices[:2] + slices[3:])
    phantom = lumbar_phantom(0, slices=5, rows=224, columns=192, spacing_mm=(5.0, 1.4, 1.4))
    system.store(
        mr_series(
            4095 - phantom.pixels,
            phantom.affine_lps,
            StudyInstanceUID=inverted,
            SeriesInstanceUID=f"{inverted}.1",
            FrameOfReferenceUID=f"{inverted}.9",
            PatientID=system.new_patient(),
            IssuerOfPatientID=ISSUER,
            StudyDescription="L-spine SYNTHETIC",
        )
    )
    start_worker(PIPELINE="real")
    for study, code in ((lacking, "missing-slices"), (inverted, "inverted-image")):
        task = system.ended_task(study, 120)
        assert task["status"] == "rejected"
        known = ANALYSIS_REASONS[code]
        assert task["statusReason"] == {"coding": [known.coding()], "text": known.display_zh}
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


def test_a_task_cancelled_by_a_person_is_left_alone(system: Installation, start_worker: StartWorker) -> None:
    study = system.new_study()
    worker = start_worker(SLOW_S="3")
    wait_for(lambda: worker.started_runs == 1, 30, "the run")
    system.cancel(study)
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
    beat = heartbeat_file(system.settings.home, "worker")
    beat.unlink(missing_ok=True)  # of the workers before it
    worker = start_worker(PIPELINE="real")
    wait_for(beat.exists, 20, "the heartbeat")
    resident_mb = psutil.Process(worker.process.pid).memory_info().rss / 1e6
    assert resident_mb < 150
