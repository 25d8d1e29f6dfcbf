"""Images that change: sent again, corrected, moved, deleted behind our back, two files under one UID.

IHE RAD TF-1 Patient Information Reconciliation; https://hl7.org/fhir/R4/imagingstudy.html. SYNTHETIC images.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dicomweb.reconciliation.decisions import confirm
from foramen.kernel.errors import ConflictError, NotFoundError
from tests.builders.dicom import series
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dicomweb.reconciliation.three_places import (
    TRACE,
    WHO,
    drift_id,
    gone_from_orthanc,
    in_orthanc,
    kinds,
    quiet,
    seen_by,
    storescu,
    truth,
)


@pytest.mark.requirement("PS3.4 B.4.1: sent, corrected, sent again, merged, late: one truth everywhere (IHE RAD-8, 12)")
async def test_a_study_sent_by_dcmtk_corrected_resent_merged_and_late_is_the_same_everywhere(
    gateway: Gateway, rows: Any, tmp_path: Path
):
    await gateway.add_patient("PIR-OLD", "pir-old")
    await gateway.add_patient("PIR-NEW", "pir-new")
    *images, late, later = series(5, seed=501, patient_id="PIR-OLD")
    study = str(images[0].StudyInstanceUID)
    await asyncio.to_thread(storescu, gateway, tmp_path / "sent", *images)
    assert await gateway.until(lambda: gateway.imaging_studies(study))
    first = await truth(gateway, study)
    assert first["counts"] == (3, 3, 3)
    assert (first["descriptions"], first["subject"]) == ({"Lumbar spine MR SYNTHETIC"}, "Patient/pir-old")

    # Corrected: the archive's own file is another one now, under the same UIDs.
    gone_from_orthanc(gateway, *images)
    for image in images:
        image.StudyDescription = "Lumbar spine MR corrected SYNTHETIC"
    await asyncio.to_thread(storescu, gateway, tmp_path / "corrected", *images)

    async def corrected() -> bool:
        return (await gateway.imaging_studies(study))[0]["description"] == images[0].StudyDescription

    await gateway.until(corrected)
    second = await truth(gateway, study)
    assert second["counts"] == (3, 3, 3)
    assert second["descriptions"] == {"Lumbar spine MR corrected SYNTHETIC"}
    text = (await gateway.get(f"/studies/{study}/metadata")).text
    assert text.count("MR corrected SYNTHETIC") == 3
    assert await kinds(rows, study) == {"header-changed": "mended"}

    # Sent again, also with another header while the original stands: Orthanc keeps the original, and so does the truth.
    await asyncio.to_thread(storescu, gateway, tmp_path / "again", *images)
    images[0].StudyDescription = "never stored SYNTHETIC"
    await asyncio.to_thread(storescu, gateway, tmp_path / "other", images[0])
    await gateway.register(study)
    assert await truth(gateway, study) == second

    # The patient is merged in the record; a late instance still names the old Patient ID.
    old = await gateway.record.read("Patient/pir-old")
    link = {"other": {"reference": "Patient/pir-new"}, "type": "replaced-by"}
    await gateway.service.watch.look()
    await gateway.record.update(old | {"active": False, "link": [link]})
    assert await gateway.service.watch.look() >= 1

    async def merged() -> bool:
        return (await gateway.imaging_studies(study))[0]["subject"] == {"reference": "Patient/pir-new"}

    await gateway.until(merged)
    for image in (late, later):
        image.StudyDescription = "Lumbar spine MR corrected SYNTHETIC"
    await asyncio.to_thread(storescu, gateway, tmp_path / "late", late)
    assert (await gateway.store(later)).status_code == 200

    async def grown() -> bool:
        return (await gateway.imaging_studies(study))[0]["numberOfInstances"] == 5

    await gateway.until(grown)
    last = await truth(gateway, study)
    assert (last["counts"], last["patient"], last["subject"]) == ((5, 5, 5), "PIR-NEW", "Patient/pir-new")
    assert (await seen_by(gateway, study, "pir-new"), await seen_by(gateway, study, "pir-old")) == (200, 404)
    found = await kinds(rows, study)
    assert found["patient-merged"] == found["demographics"] == found["late-instances"] == "mended"
    events = await rows.fetch("SELECT 1 FROM dicomweb.drift WHERE study_instance_uid = $1 AND state = 'open'", study)
    assert events == []


@pytest.mark.requirement("PS3.3 C.7.2.1: instances moved to another study, and back (merge and split)")
async def test_instances_that_move_to_another_study_leave_the_first(gateway: Gateway, rows: Any):
    await gateway.add_patient("PIR-41", "pir41")
    stays, moves = series(2, seed=504, patient_id="PIR-41")
    one, other = str(stays.StudyInstanceUID), f"{stays.StudyInstanceUID}.2"
    await gateway.store(stays, moves)
    await gateway.register(one)
    gone_from_orthanc(gateway, moves)
    moves.StudyInstanceUID, moves.SeriesInstanceUID = other, f"{moves.SeriesInstanceUID}.2"
    in_orthanc(gateway, moves)
    await gateway.register(one)  # It asks for the other, which takes the instance over.

    async def moved() -> bool:
        return [item["numberOfInstances"] for item in await gateway.imaging_studies(other)] == [1]

    await gateway.until(moved)

    async def left() -> bool:
        return (await gateway.imaging_studies(one))[0]["numberOfInstances"] == 1

    await gateway.until(left)
    assert (await truth(gateway, one))["counts"] == (1, 1, 1)
    assert (await truth(gateway, other))["counts"] == (1, 1, 1)
    assert (await kinds(rows, other)).get("moved") == "mended"
    # And back: nothing is left of the second.
    gone_from_orthanc(gateway, moves)
    moves.StudyInstanceUID, moves.SeriesInstanceUID = one, stays.SeriesInstanceUID
    in_orthanc(gateway, moves)
    await gateway.register(one)

    async def emptied() -> bool:
        return (await gateway.imaging_studies(other))[0]["status"] == "entered-in-error"

    await gateway.until(emptied)
    assert (await truth(gateway, one))["counts"] == (2, 2, 2)
    assert {task["status"] for task in await gateway.tasks(other)} == {"cancelled"}


@pytest.mark.requirement("IHE RAD-66: a deletion behind our back is shown and waits for a person")
async def test_a_deletion_behind_our_back_changes_nothing_until_it_is_confirmed(gateway: Gateway, rows: Any):
    await gateway.add_patient("PIR-51", "pir51")
    images = series(2, seed=505, patient_id="PIR-51")
    study = str(images[0].StudyInstanceUID)
    await gateway.store(*images)
    await gateway.register(study)
    before = await gateway.imaging_studies(study)
    gone_from_orthanc(gateway, *images)
    await rows.execute("DELETE FROM dicomweb.followed WHERE source = 'archive'")

    async def noticed() -> bool:
        await gateway.service.watch.go_round()
        return "missing-in-archive" in await kinds(rows, study)

    await gateway.until(noticed)
    assert await kinds(rows, study) == {"missing-in-archive": "open"}
    assert await gateway.imaging_studies(study) == before
    assert len((await gateway.get(f"/studies/{study}/instances")).json()) == 2
    found = await drift_id(rows, study, "missing-in-archive")
    await quiet(gateway, rows)
    # One of them comes back before the decision: it is not given up.
    in_orthanc(gateway, images[0])
    await rows.execute(
        "INSERT INTO dicomweb.legal_hold (study_instance_uid, reason, placed_by) VALUES ($1, 'court', 'x')", study
    )
    back = {str(images[0].SOPInstanceUID)}
    async with rows.transaction():
        with pytest.raises(ConflictError):
            await confirm(rows, found, back, WHO, TRACE)
    await rows.execute("UPDATE dicomweb.legal_hold SET released_at = now() WHERE study_instance_uid = $1", study)
    async with rows.transaction():
        assert await confirm(rows, found, back, WHO, TRACE) == study
        with pytest.raises(ConflictError):
            await confirm(rows, found, back, WHO, TRACE)
        with pytest.raises(NotFoundError):
            await confirm(rows, 10**9, back, WHO, TRACE)
    await gateway.register(study)
    assert (await truth(gateway, study))["counts"] == (1, 1, 1)
    assert (await kinds(rows, study))["missing-in-archive"] == "confirmed"
    await quiet(gateway, rows)
    gone_from_orthanc(gateway, images[0])
    await gateway.register(study)
    async with rows.transaction():
        await confirm(rows, await drift_id(rows, study, "missing-in-archive"), set(), WHO, TRACE)
    await gateway.register(study)
    (resource,) = await gateway.imaging_studies(study)
    assert (resource["status"], resource["numberOfInstances"]) == ("entered-in-error", 0)
    assert "series" not in resource
    assert (await gateway.get(f"/studies?StudyInstanceUID={study}")).json() == []
    trail = [event for event in await gateway.audit_events(TRACE) if event["agent"][0]["altId"] == "archivist"]
    assert trail or await rows.fetchval("SELECT 1 FROM dicomweb.audit_outbox WHERE event LIKE '%confirm-missing%'")


async def test_two_files_under_one_uid_wait_for_a_person_and_end_with_their_cause(gateway: Gateway, rows: Any):
    await gateway.add_patient("PIR-71", "pir71")
    await gateway.add_patient("PIR-72", "pir72")
    (image,) = series(1, seed=507, patient_id="PIR-71")
    study = str(image.StudyInstanceUID)
    await gateway.store(image)
    await gateway.register(study)
    await quiet(gateway, rows)
    image.PatientID = "PIR-72"
    in_orthanc(gateway, image)
    await gateway.register(study)
    assert await kinds(rows, study) == {"duplicate-instance": "open"}
    assert (await gateway.imaging_studies(study))[0]["subject"] == {"reference": "Patient/pir71"}
    with gateway.orthanc.client() as client:
        for found in client.post("/tools/lookup", content=str(image.SOPInstanceUID)).json():
            if client.get(f"/instances/{found['ID']}/patient").json()["MainDicomTags"]["PatientID"] == "PIR-71":
                client.delete(f"/instances/{found['ID']}")
    await gateway.register(study)
    assert (await truth(gateway, study))["subject"] == "Patient/pir72"
    assert await kinds(rows, study) == {"duplicate-instance": "resolved", "patient-changed": "mended"}
