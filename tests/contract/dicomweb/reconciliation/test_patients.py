"""Whose a study is: the record's patient data in answers, corrected Patient IDs, merges, two numbers in one study."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from foramen.kernel.errors import UpstreamError
from terminology import codes, systems
from tests.builders.dicom import series
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dicomweb.reconciliation.three_places import (
    NAME,
    ORIGINALS,
    TRACE,
    in_orthanc,
    kinds,
    quiet,
    seen_by,
    truth,
)


@pytest.mark.requirement("PS3.3 C.12.1.1.9: answers carry the record's patient data and what stood there (IHE RAD-12)")
async def test_metadata_show_the_records_patient_data_and_the_original_attributes(gateway: Gateway, rows: Any):
    identifier = {"system": f"{systems.IDENTIFIER_PATIENT}/DEMO", "value": "PIR-20"}
    patient = {"resourceType": "Patient", "id": "pir20", "identifier": [identifier], "birthDate": "1971-02-03"}
    patient |= {"name": [{"family": "Corrected", "given": ["Name"]}], "gender": "female"}
    await gateway.record.update(patient)
    image, other = series(2, seed=502, patient_id="PIR-20")
    image.PatientBirthDate = other.PatientBirthDate = "19700101"
    study = str(image.StudyInstanceUID)
    await gateway.store(image, other)
    await gateway.register(study)
    (shown, _) = (await gateway.get(f"/studies/{study}/metadata")).json()
    assert shown[NAME]["Value"] == [{"Alphabetic": "Corrected^Name"}]
    (item,) = shown[ORIGINALS]["Value"]
    assert item["04000550"]["Value"][0][NAME]["Value"] == [{"Alphabetic": "SYNTHETIC^ONE"}]
    assert item["04000550"]["Value"][0]["00100030"]["Value"] == ["19700101"]
    assert item["04000565"]["Value"] == ["COERCE"]
    assert len((await gateway.get("/studies?PatientName=corrected*")).json()) == 1
    assert (await gateway.get("/studies?PatientID=PIR-20&PatientName=SYNTHETIC*")).json() == []
    # The file itself is what it was: it is never rewritten.
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    assert b"SYNTHETIC^ONE" in (await gateway.get(f"/studies/{study}", accept=accept)).content
    # The record is set right again: what the files say is shown, and nothing is left of ours.
    await gateway.record.update(
        patient | {"name": [{"family": "Synthetic", "given": ["One"]}], "birthDate": "1970-01-01"}
    )
    await gateway.register(study)
    (shown, _) = (await gateway.get(f"/studies/{study}/metadata")).json()
    assert shown[NAME]["Value"] == [{"Alphabetic": "SYNTHETIC^ONE"}]
    (item,) = shown[ORIGINALS]["Value"]  # Of the sex alone, which the file does not say.
    assert list(item["04000550"]["Value"][0]) == ["00100040"]


@pytest.mark.requirement("PS3.3 C.7.1.1: a Patient ID corrected in the archive takes the study along (IHE RAD-12)")
async def test_a_patient_id_corrected_in_the_archive_takes_the_study_along(gateway: Gateway, rows: Any):
    await gateway.add_patient("PIR-31", "pir31")
    await gateway.add_patient("PIR-32", "pir32")
    images = series(2, seed=503, patient_id="PIR-31")
    study = str(images[0].StudyInstanceUID)
    await gateway.store(*images)
    await gateway.register(study)
    assert (await truth(gateway, study))["subject"] == "Patient/pir31"

    def renamed(number: str) -> None:
        """By Orthanc's own modification, which gives the instances other ids and keeps their UIDs."""
        with gateway.orthanc.client() as client:
            (found,) = [one for one in client.post("/tools/lookup", content=study).json() if one["Type"] == "Study"]
            kept = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
            change = {"Replace": {"PatientID": number}, "Keep": kept, "Force": True}
            for row in client.get(f"/studies/{found['ID']}/instances").json():
                answer = client.post(f"/instances/{row['ID']}/modify", json=change)
                assert answer.status_code == 200, answer.text
                assert client.post("/instances", content=answer.content).json()["Status"] == "Success"
            assert client.delete(f"/studies/{found['ID']}").status_code == 200

    await asyncio.to_thread(renamed, "PIR-32")
    await gateway.register(study)
    found = await truth(gateway, study)
    assert (found["counts"], found["subject"], found["patient"]) == ((2, 2, 2), "Patient/pir32", "PIR-32")
    assert (await seen_by(gateway, study, "pir32"), await seen_by(gateway, study, "pir31")) == (200, 404)
    assert "patient-changed" in await kinds(rows, study)

    # To a number that nobody has: they are not the old patient's images any more, in no place.
    await asyncio.to_thread(renamed, "PIR-NOBODY")
    await gateway.register(study)
    assert (await truth(gateway, study))["status"] == "entered-in-error"
    assert await seen_by(gateway, study, "pir32") == 404
    # The unknown patient becomes known (PIR's unidentified patient): the study is theirs without anybody asking.
    await gateway.service.watch.look()
    await gateway.add_patient("PIR-NOBODY", "pir33")
    await gateway.service.watch.look()

    async def theirs() -> bool:
        return (await gateway.imaging_studies(study))[0]["status"] == "available"

    await gateway.until(theirs)
    assert (await truth(gateway, study))["subject"] == "Patient/pir33"


async def test_files_of_two_numbers_are_one_patients_once_the_record_says_so(
    gateway: Gateway, rows: Any, monkeypatch: pytest.MonkeyPatch
):
    await gateway.add_patient("PIR-75", "pir75")
    await gateway.add_patient("PIR-76", "pir76")
    image, other = series(2, seed=512, patient_id="PIR-75")
    study = str(image.StudyInstanceUID)
    await gateway.store(image)
    await gateway.register(study)
    other.PatientID = "PIR-76"
    in_orthanc(gateway, other)
    await gateway.register(study)
    assert await kinds(rows, study) == {"patients-mixed": "open", "patient-lost": "mended"}
    assert (await gateway.imaging_studies(study))[0]["status"] == "entered-in-error"
    assert (await seen_by(gateway, study, "pir75"), await seen_by(gateway, study, "pir76")) == (404, 404)
    merged = await gateway.record.read("Patient/pir75")
    link = {"other": {"reference": "Patient/pir76"}, "type": "replaced-by"}
    await gateway.record.update(merged | {"link": [link]})

    # While the record is down it waits, durably; then it is done without anybody asking again.
    async def refuse(*_: object, **__: object) -> None:
        raise UpstreamError("The FHIR server does not answer")

    await quiet(gateway, rows)
    with monkeypatch.context() as patch:
        patch.setattr(gateway.service._fhir, "_request", refuse)
        assert await gateway.service.intake.bring_into_line(study, TRACE) == "waits"
        assert await rows.fetchval("SELECT count(*) FROM dicomweb.arrival WHERE study_instance_uid = $1", study) == 1

    async def available() -> bool:
        return (await gateway.imaging_studies(study))[0]["status"] == "available"

    await gateway.until(available, timeout_s=60)
    found = await truth(gateway, study)
    assert (found["counts"], found["subject"], found["patient"]) == ((2, 2, 2), "Patient/pir76", "PIR-76")
    await quiet(gateway, rows)
    assert (await kinds(rows, study))["patients-mixed"] == "resolved"
    # A record that is closed without a survivor is told, and nothing is guessed.
    survivor = await gateway.record.read("Patient/pir76")
    await gateway.record.update(survivor | {"active": False})
    await gateway.register(study)
    assert (await kinds(rows, study))["patient-inactive"] == "open"
    assert (await truth(gateway, study))["subject"] == "Patient/pir76"


async def test_a_merge_that_leads_nowhere_or_in_a_ring_is_nobodys(gateway: Gateway):
    def merged_into(other: str) -> dict[str, Any]:
        return {"link": [{"other": {"reference": f"Patient/{other}"}, "type": "replaced-by"}]}

    for identity, number in (("pir81", "PIR-81"), ("pir82", "PIR-82")):
        await gateway.add_patient(number, identity)
    for one, other in (("pir81", "pir82"), ("pir82", "pir81")):
        patient = await gateway.record.read(f"Patient/{one}")
        await gateway.record.update(patient | merged_into(other))
    (image,) = series(1, seed=508, patient_id="PIR-81")
    await gateway.store(image)
    await gateway.register(str(image.StudyInstanceUID))
    (task,) = await gateway.tasks(str(image.StudyInstanceUID))
    assert task["statusReason"]["coding"] == [codes.REGISTRATION_REASONS["no-patient-match"].coding()]
    assert await gateway.imaging_studies(str(image.StudyInstanceUID)) == []
