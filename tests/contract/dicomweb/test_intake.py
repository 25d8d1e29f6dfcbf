"""Stage 2 and 3: what arrives is registered once, never guessed, never lost.

https://hl7.org/fhir/R4/imagingstudy.html, https://hl7.org/fhir/R4/task.html
"""

from __future__ import annotations

import asyncio
import copy

import httpx
import pytest
from pydicom import Dataset
from pydicom.uid import SegmentationStorage

from foramen.ingest.send import send_instances
from foramen.kernel.errors import UpstreamError
from foramen.kernel.identifiers import derived_uid
from foramen.kernel.secret_files import read_or_create_secret
from terminology import codes, systems
from tests.builders.dicom import series
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import Gateway


def send(gateway: Gateway, datasets: list[Dataset]) -> None:
    settings = gateway.orthanc.settings
    outcomes = send_instances(datasets, "127.0.0.1", settings.dicom_port, settings.dicom_aet)
    assert [item.reason for item in outcomes] == [""] * len(datasets)


async def with_tasks(gateway: Gateway, study: str, count: int) -> list[dict]:
    async def enough() -> list[dict]:
        tasks = await gateway.tasks(study)
        return tasks if len(tasks) >= count else []

    return await gateway.until(enough)


async def test_a_study_sent_by_c_store_becomes_imaging_study_and_task(gateway: Gateway):
    await gateway.add_patient("SYN-61", "p61")
    datasets = series(3, seed=61, patient_id="SYN-61")
    study = datasets[0].StudyInstanceUID
    await asyncio.to_thread(send, gateway, datasets)
    (task,) = await with_tasks(gateway, study, 1)
    (resource,) = await gateway.imaging_studies(study)
    assert resource["subject"] == {"reference": "Patient/p61"}
    assert resource["started"] == "2026-01-05"
    assert resource["numberOfInstances"] == 3
    (entry,) = resource["series"]
    assert (entry["uid"], entry["modality"]["code"], entry["numberOfInstances"]) == (
        datasets[0].SeriesInstanceUID,
        "MR",
        3,
    )
    assert resource["meta"]["tag"] == [codes.SYNTHETIC.coding()]
    assert task["status"] == "requested"
    assert task["intent"] == "order"
    assert task["for"] == {"reference": "Patient/p61"}
    assert task["focus"]["reference"] == f"ImagingStudy/{resource['id']}"
    assert task["code"]["coding"] == [codes.ANALYSE_STUDY.coding()]
    identifiers = {item["system"]: item["value"] for item in task["identifier"]}
    assert identifiers[systems.IDENTIFIER_TASK].startswith(f"{study}|")
    assert len(identifiers[systems.IDENTIFIER_TRACE]) == 32
    assert "SYNTHETIC^ONE" not in str(task)


async def test_a_study_of_a_stat_order_begins_as_an_emergency(gateway: Gateway):
    """Of two patients with the same accession number, one has the order; a third study says it in its images."""
    for number in (162, 163, 164):
        await gateway.add_patient(f"SYN-{number}", f"p{number}")
    accession = {"coding": [{"system": systems.IDENTIFIER_TYPE, "code": "ACSN"}]}
    await gateway.record.update(
        {
            "resourceType": "ServiceRequest",
            "id": "stat-order",
            "identifier": [{"type": accession, "system": f"{systems.BASE}/identifier/accession", "value": "A|162,x"}],
            "status": "active",
            "intent": "order",
            "priority": "stat",
            "subject": {"reference": "Patient/p162"},
        }
    )
    expected = {162: ("stat", "ServiceRequest/stat-order"), 163: (None, None), 164: ("urgent", None)}
    for number, told in expected.items():
        datasets = series(2, seed=number, patient_id=f"SYN-{number}")
        for dataset in datasets:
            dataset.AccessionNumber = "A|162,x"
            if number == 164:
                dataset.RequestedProcedurePriority = "HIGH"
        await asyncio.to_thread(send, gateway, datasets)
        (task,) = await with_tasks(gateway, datasets[0].StudyInstanceUID, 1)
        based_on = task.get("basedOn", [{}])[0].get("reference")
        assert (task.get("priority"), based_on) == told, number


async def test_a_replay_writes_nothing(gateway: Gateway):
    await gateway.add_patient("SYN-62", "p62")
    (dataset,) = series(1, seed=62, patient_id="SYN-62")
    await gateway.store(dataset)
    await gateway.register(dataset.StudyInstanceUID)
    before = (await gateway.tasks(dataset.StudyInstanceUID), await gateway.imaging_studies(dataset.StudyInstanceUID))
    await gateway.store(dataset)
    for _ in range(3):
        await gateway.register(dataset.StudyInstanceUID)
    after = (await gateway.tasks(dataset.StudyInstanceUID), await gateway.imaging_studies(dataset.StudyInstanceUID))
    assert before == after
    assert len(after[0]) == len(after[1]) == 1


async def test_two_registrations_at_once_write_one_task(gateway: Gateway):
    await gateway.add_patient("SYN-63", "p63")
    (dataset,) = series(1, seed=63, patient_id="SYN-63")
    await gateway.store(dataset)
    results = await asyncio.gather(
        *(gateway.register(dataset.StudyInstanceUID) for _ in range(5)), return_exceptions=True
    )
    assert any(item is None for item in results)
    assert len(await gateway.tasks(dataset.StudyInstanceUID)) == 1
    assert len(await gateway.imaging_studies(dataset.StudyInstanceUID)) == 1


async def test_a_study_that_grows_gets_a_new_task_and_the_waiting_one_is_cancelled(gateway: Gateway):
    await gateway.add_patient("SYN-64", "p64")
    first, second = series(2, seed=64, patient_id="SYN-64")
    study = first.StudyInstanceUID
    await gateway.store(first)
    await gateway.register(study)
    await gateway.store(second)
    await gateway.register(study)
    tasks = await gateway.tasks(study)
    assert sorted(task["status"] for task in tasks) == ["cancelled", "requested"]
    (resource,) = await gateway.imaging_studies(study)
    assert resource["numberOfInstances"] == 2


async def test_a_task_that_is_worked_on_is_superseded_when_the_study_grows(gateway: Gateway):
    await gateway.add_patient("SYN-65", "p65")
    first, second = series(2, seed=65, patient_id="SYN-65")
    study = first.StudyInstanceUID
    await gateway.store(first)
    await gateway.register(study)
    (task,) = await gateway.tasks(study)
    await gateway.record.update(task | {"status": "in-progress"}, if_match=task["meta"]["versionId"])
    await gateway.store(second)
    await gateway.register(study)
    assert sorted(item["status"] for item in await gateway.tasks(study)) == ["cancelled", "requested"]


async def test_our_own_results_are_listed_but_start_no_run(gateway: Gateway):
    await gateway.add_patient("SYN-66", "p66")
    (source,) = series(1, seed=66, patient_id="SYN-66")
    study = source.StudyInstanceUID
    await gateway.store(source)
    await gateway.register(study)
    result = copy.deepcopy(source)
    result.SOPClassUID = result.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    result.Modality, result.Manufacturer = "SEG", "Foramen"
    result.SeriesInstanceUID = derived_uid("own", study)
    result.SOPInstanceUID = result.file_meta.MediaStorageSOPInstanceUID = derived_uid("own instance", study)
    assert (await gateway.store(result)).status_code == 200
    await gateway.register(study)
    assert len(await gateway.tasks(study)) == 1
    (resource,) = await gateway.imaging_studies(study)
    assert sorted(entry["modality"]["code"] for entry in resource["series"]) == ["MR", "SEG"]


@pytest.mark.parametrize(
    ("seed", "changes", "reason"),
    [
        (67, {"patient_id": "NOBODY"}, "no-patient-match"),
        (68, {"patient_id": "SYN-68", "issuer": None}, "no-issuer"),
        (69, {"patient_id": "SYN-69", "issuer": "ELSEWHERE"}, "no-patient-match"),
    ],
)
async def test_without_a_match_the_task_waits_and_nothing_else_is_written(
    gateway: Gateway, seed: int, changes: dict, reason: str
):
    await gateway.add_patient(f"SYN-{seed}", f"p{seed}")
    (dataset,) = series(1, seed=seed, **changes)
    study = dataset.StudyInstanceUID
    await gateway.store(dataset)
    await gateway.register(study)
    (task,) = await gateway.tasks(study)
    assert task["status"] == "on-hold"
    assert task["statusReason"]["coding"][0]["system"] == systems.TASK_REASON
    assert task["statusReason"]["coding"][0]["code"] == reason
    assert "for" not in task
    assert task["focus"] == {
        "type": "ImagingStudy",
        "identifier": {"system": systems.DICOM_UID, "value": f"urn:oid:{study}"},
    }
    assert await gateway.imaging_studies(study) == []


async def test_a_waiting_study_is_registered_on_request(gateway: Gateway):
    (dataset,) = series(1, seed=70, patient_id="SYN-70")
    study = dataset.StudyInstanceUID
    await gateway.store(dataset)
    await gateway.register(study)
    (waiting,) = await gateway.tasks(study)
    assert waiting["status"] == "on-hold"
    await gateway.add_patient("SYN-70", "p70")
    answer = await gateway.http.post(f"/studies/{study}/register", headers=bearer("user/Task.u"))
    assert answer.status_code == 202

    async def released() -> bool:
        return (await gateway.tasks(study))[0]["status"] == "requested"

    await gateway.until(released)
    (task,) = await gateway.tasks(study)
    assert task["id"] == waiting["id"]
    assert task["for"] == {"reference": "Patient/p70"}
    assert "statusReason" not in task
    assert (await gateway.http.post("/studies/1.2.3/register", headers=bearer("user/Task.u"))).status_code == 404


async def test_a_study_of_two_patients_is_held_and_hidden_from_both(gateway: Gateway):
    await gateway.add_patient("SYN-71", "p71")
    one, two = series(2, seed=71, patient_id="SYN-71")
    two.PatientID = "SYN-72"
    await asyncio.to_thread(send, gateway, [one, two])
    (task,) = await with_tasks(gateway, one.StudyInstanceUID, 1)
    assert task["statusReason"]["coding"][0]["code"] == "conflicting-patient-id"
    token = bearer("patient/ImagingStudy.rs", patient="p71")
    assert (await gateway.http.get(f"/studies/{one.StudyInstanceUID}", headers=token)).status_code == 404


async def test_while_the_record_is_down_the_arrival_waits_and_then_is_registered(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
):
    await gateway.add_patient("SYN-73", "p73")
    (dataset,) = series(1, seed=73, patient_id="SYN-73")
    tried = asyncio.Event()

    async def refuse(*_: object, **__: object) -> None:
        tried.set()
        raise UpstreamError("The FHIR server does not answer")

    monkeypatch.setattr(gateway.service._fhir, "_request", refuse)
    await gateway.store(dataset)
    await asyncio.wait_for(tried.wait(), 15)
    assert await gateway.tasks(dataset.StudyInstanceUID) == []
    monkeypatch.undo()
    (task,) = await with_tasks(gateway, dataset.StudyInstanceUID, 1)
    assert task["status"] == "requested"


async def test_a_study_nobody_announced_is_found_by_reconciliation(gateway: Gateway):
    await gateway.add_patient("SYN-74", "p74")
    (dataset,) = series(1, seed=74, patient_id="SYN-74")
    from tests.builders.dicom import encoded

    with gateway.orthanc.client() as client:
        client.post("/instances", content=encoded(dataset)).raise_for_status()
    assert await gateway.service.intake.reconcile() == 1
    assert await gateway.service.intake.reconcile() == 0
    await with_tasks(gateway, dataset.StudyInstanceUID, 1)


@pytest.mark.parametrize(
    ("authorization", "body", "status"),
    [
        (None, {"studyInstanceUID": "1.2.3", "traceId": "0" * 32}, 401),
        ("Bearer wrong", {"studyInstanceUID": "1.2.3", "traceId": "0" * 32}, 401),
        ("secret", {"studyInstanceUID": "not a uid", "traceId": "0" * 32}, 400),
        ("secret", {"studyInstanceUID": "1.2.3"}, 400),
        ("secret", ["1.2.3"], 400),
        ("secret", {"studyInstanceUID": "1.2.3.404", "traceId": "0" * 32}, 202),
    ],
)
async def test_the_notice_of_the_plug_in(gateway: Gateway, authorization: str | None, body: object, status: int):
    if authorization == "secret":
        authorization = f"Bearer {read_or_create_secret(gateway.orthanc.settings.home, 'notify')}"
    headers = {"Authorization": authorization} if authorization else {}
    answer: httpx.Response = await gateway.http.post("/-/study-arrived", json=body, headers=headers)
    assert answer.status_code == status
