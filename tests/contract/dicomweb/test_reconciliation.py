"""One truth of a study in QIDO-RS, in FHIR ImagingStudy and in Orthanc, whatever changed and wherever.

IHE RAD TF-1 Patient Information Reconciliation; https://hl7.org/fhir/R4/imagingstudy.html. SYNTHETIC images.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from typer.testing import CliRunner

from dicomweb.database import Database
from dicomweb.reconciliation.decisions import confirm
from foramen.cli import app as cli
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import ConflictError, InteropError, NotFoundError, UpstreamError
from foramen.kernel.settings import get_settings
from foramen.supervisor.ports import free_port
from terminology import codes, systems
from tests.builders.dicom import Orthanc, encoded, private_orthanc, series
from tests.builders.tokens import ORIGIN, bearer
from tests.contract.dicomweb.conftest import Gateway

TRACE = "5" * 32
WHO = AccessContext("archivist", "foramen-cli", ())
NAME, NUMBER, ORIGINALS = "00100010", "00100020", "04000561"


@pytest.fixture(scope="module")
def orthanc() -> Iterator[Orthanc]:
    home = Path(tempfile.mkdtemp(prefix="foramen-test-reconciliation-"))
    # The tests say when it is looked for what changed behind our back.
    with private_orthanc(home, port=free_port(), public_url=ORIGIN, reconcile_every_s=3600) as running:
        yield running
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def command(gateway: Gateway, module_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`foramen reconcile …` beside the running gateway: exit status and output."""
    settings = gateway.orthanc.settings
    named = {"HOME": settings.home, "PORT": settings.port, "DATABASE_URL": module_database_url}
    named |= {"ORTHANC_HTTP_PORT": settings.orthanc_http_port, "DICOM_PORT": settings.dicom_port, "PUBLIC_URL": ORIGIN}
    for name, value in named.items():
        monkeypatch.setenv(f"FORAMEN_{name}", str(value))
    get_settings.cache_clear()

    async def run(*arguments: str) -> tuple[int, str]:
        result = await asyncio.to_thread(CliRunner().invoke, cli, ["reconcile", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit | InteropError), result.exception
        said = str(result.exception) if isinstance(result.exception, InteropError) else ""
        return result.exit_code, result.stdout + said

    yield run
    get_settings.cache_clear()


@pytest.fixture
async def rows(module_database_url: str) -> Any:
    database = Database(module_database_url)
    async with database.connection() as connection:
        yield connection
    await database.close()


def storescu(gateway: Gateway, folder: Path, *datasets: Dataset) -> None:
    """Send by dcmtk's own sender."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, dataset in enumerate(datasets):
        files.append(folder / f"{number}.dcm")
        files[-1].write_bytes(encoded(dataset))
    settings = gateway.orthanc.settings
    command = ["storescu", "-aec", settings.dicom_aet, "127.0.0.1", str(settings.dicom_port), *map(str, files)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def in_orthanc(gateway: Gateway, *datasets: Dataset) -> None:
    """Store in Orthanc behind the gateway's back."""
    with gateway.orthanc.client() as client:
        for dataset in datasets:
            assert client.post("/instances", content=encoded(dataset)).json()["Status"] == "Success"


def gone_from_orthanc(gateway: Gateway, *datasets: Dataset) -> None:
    with gateway.orthanc.client() as client:
        for dataset in datasets:
            for found in client.post("/tools/lookup", content=str(dataset.SOPInstanceUID)).json():
                assert client.delete(f"/instances/{found['ID']}").status_code == 200


async def truth(gateway: Gateway, study: str) -> dict[str, Any]:
    """What the three say of a study: of each how many instances, of which series, and what description."""
    (found,) = (await gateway.get(f"/studies?StudyInstanceUID={study}&includefield=StudyDescription")).json()
    (resource,) = await gateway.imaging_studies(study)
    with gateway.orthanc.client() as client:
        ids = [item["ID"] for item in client.post("/tools/lookup", content=study).json() if item["Type"] == "Study"]
        stored = [row for one in ids for row in client.get(f"/studies/{one}/instances").json()]
        tags = client.get(f"/studies/{ids[0]}").json()["MainDicomTags"]
    return {
        "counts": (found["00201208"]["Value"][0], resource["numberOfInstances"], len(stored)),
        "descriptions": {found["00081030"]["Value"][0], resource["description"], tags["StudyDescription"]},
        "patient": found[NUMBER]["Value"][0],
        "subject": resource["subject"]["reference"],
        "status": resource["status"],
        "version": resource["meta"]["versionId"],
    }


async def kinds(rows: Any, study: str) -> dict[str, str]:
    found = await rows.fetch("SELECT kind, state FROM dicomweb.drift WHERE study_instance_uid = $1 ORDER BY id", study)
    return {row[0]: row[1] for row in found}


async def drift_id(rows: Any, study: str, kind: str) -> int:
    query = "SELECT id FROM dicomweb.drift WHERE study_instance_uid = $1 AND kind = $2 AND state = 'open'"
    return int(await rows.fetchval(query, study, kind))


def announced(orthanc: Orthanc) -> bool:
    """Whether Orthanc has nothing more to tell: studies are stable, and its plug-in has delivered what it noticed."""
    folder = orthanc.settings.home / "orthanc" / "outbox"
    with orthanc.client() as client:
        if not all(study["IsStable"] for study in client.get("/studies?expand").json()):
            return False
        last = client.get("/changes?last").json()["Last"]
    swept = json.loads((folder / "checkpoint.json").read_text())["swept"]
    return swept >= last and not list(folder.glob("[0-9]*.json"))


async def quiet(gateway: Gateway, rows: Any) -> None:
    """Wait until the intake has nothing left to do, and nothing more will be announced."""

    async def done() -> bool:
        if not await asyncio.to_thread(announced, gateway.orthanc):
            return False
        return not await rows.fetchval("SELECT count(*) FROM dicomweb.arrival")

    await gateway.until(done)


async def seen_by(gateway: Gateway, study: str, patient: str) -> int:
    headers = bearer("patient/ImagingStudy.rs", patient=patient)
    return (await gateway.http.get(f"/studies/{study}/metadata", headers=headers)).status_code


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


async def test_an_imaging_study_changed_in_the_record_is_set_right_and_a_deleted_one_waits(gateway: Gateway, rows: Any):
    await gateway.add_patient("PIR-61", "pir61")
    images = series(2, seed=506, patient_id="PIR-61")
    study = str(images[0].StudyInstanceUID)
    await gateway.store(*images)
    await gateway.register(study)
    await quiet(gateway, rows)
    await gateway.service.watch.look()
    (right,) = await gateway.imaging_studies(study)
    note = [{"text": "seen SYNTHETIC"}]
    await gateway.record.update(right | {"numberOfInstances": 7, "note": note})
    assert await gateway.service.watch.look() >= 1

    async def set_right() -> bool:
        return (await gateway.imaging_studies(study))[0]["numberOfInstances"] == 2

    await gateway.until(set_right)
    await quiet(gateway, rows)
    (resource,) = await gateway.imaging_studies(study)
    assert resource["note"] == note  # What others added stays.
    await gateway.record._request("DELETE", f"ImagingStudy/{resource['id']}")
    assert await gateway.service.watch.look() >= 1

    async def noticed() -> bool:
        return (await kinds(rows, study)).get("record-deleted") == "open"

    await gateway.until(noticed)
    await quiet(gateway, rows)
    assert await gateway.imaging_studies(study) == []
    async with rows.transaction():
        await confirm(rows, await drift_id(rows, study, "record-deleted"), set(), WHO, TRACE)
    await gateway.register(study)
    assert (await truth(gateway, study))["counts"] == (2, 2, 2)
    assert await kinds(rows, study) == {"record-changed": "mended", "record-deleted": "confirmed"}


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


async def test_the_command_compares_both_ways_mends_and_tells(
    gateway: Gateway, rows: Any, command: Any, tmp_path: Path
):
    await gateway.add_patient("PIR-91", "pir91")
    lost_row, changed, lost_file = (series(1, seed=seed, patient_id="PIR-91")[0] for seed in (509, 510, 511))
    uids = [str(one.StudyInstanceUID) for one in (lost_row, changed, lost_file)]
    for one, uid in zip((lost_row, changed, lost_file), uids, strict=True):
        await gateway.store(one)
        await gateway.register(uid)

    await quiet(gateway, rows)
    for uid in uids:
        assert (await command("--study", uid))[0] == 0
    await rows.execute("DELETE FROM dicomweb.study WHERE study_instance_uid = $1", uids[0])
    (resource,) = await gateway.imaging_studies(uids[1])
    await gateway.record.update(resource | {"description": "changed by somebody SYNTHETIC"})
    gone_from_orthanc(gateway, lost_file)

    status, output = await command("--anew", "--format", "json")
    found = {one["study"]: one["kind"] for one in json.loads(output)["differences"]}
    assert status == 3, output
    assert [found[uid] for uid in uids] == ["not-indexed", "record-changed", "missing-in-archive"]
    assert await kinds(rows, uids[2]) == {}  # Without --mend nothing is changed, nor written down.

    status, output = await command("--anew", "--mend")
    assert status == 3, output
    for uid in uids[:2]:
        assert (await truth(gateway, uid))["counts"] == (1, 1, 1)
    assert (await kinds(rows, uids[0])) == {"not-indexed": "mended"}
    assert (await kinds(rows, uids[1])) == {"record-changed": "mended"}
    assert (await command("--study", uids[2], "--mend"))[0] == 3
    number = await drift_id(rows, uids[2], "missing-in-archive")
    assert (await command("--confirm", str(number)))[0] == 2
    assert (await command("--confirm", str(number), "--user", "nobody-such"))[0] == 1
    async with rows.transaction():
        await confirm(rows, number, set(), WHO, TRACE)
    await gateway.register(uids[2])
    assert (await command("--study", uids[2]))[0] == 0
    status, output = await command("--report", "--format", "html", "--folder", str(tmp_path))
    pages = [(tmp_path / name).read_text() for name in ("drift.html", "drift.en.html")]
    assert all(uids[2] in page and "archivist" in page for page in pages)
    assert "已确认" in pages[0]
    assert "Confirmed" in pages[1]


async def test_an_interrupted_comparison_goes_on_where_it_stopped(gateway: Gateway, rows: Any, command: Any):
    await rows.execute("INSERT INTO dicomweb.comparison (phase, position, studies) VALUES ('index', '9', 41)")
    await command()
    query = "SELECT studies, ended_at FROM dicomweb.comparison ORDER BY id DESC LIMIT 1"
    studies, ended = await rows.fetchrow(query)
    assert studies == 41  # Nothing of before is looked at again: no UID comes after 9.
    assert ended is not None


def test_kinds_have_words_in_both_languages() -> None:
    from dicomweb.reconciliation.kinds import KINDS

    assert all(kind.zh and kind.en and kind.code == code for code, kind in KINDS.items())
