"""Rejection by IOCM's codes, restoration, permanent deletion; hidden on every path.

IHE RAD TF-1 §30 (Imaging Object Change Management), RAD TF-2 §4.66; DICOM PS3.3 §A.35.4, PS3.16 CID 7010. SYNTHETIC.
"""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom
import psycopg
import pytest
from pydicom import Dataset, dcmread

from dicomweb.lifecycle.legal_holds import place, release
from dicomweb.lifecycle.nearline import Attachment, Nearline
from dicomweb.rejection.rows import Target
from foramen.kernel.access_context import AccessContext
from tests.builders.dicom import series
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import Gateway

MANAGE = "user/ImagingStudy.crus user/Task.rs"
EVERYTHING = "user/ImagingStudy.cruds user/Task.rs"
WHO = AccessContext("archivist", "foramen-cli", ())
PATHS = (
    *("/studies/{study}", "/studies/{study}/series/{series}", "/studies/{study}/series/{series}/instances/{instance}"),
    *("/studies/{study}/metadata", "/studies/{study}/series/{series}/metadata"),
    *("/studies/{study}/series/{series}/instances/{instance}/metadata", "/studies/{study}/rendered"),
    "/studies/{study}/series/{series}/instances/{instance}/frames/1",
    "/studies/{study}/series/{series}/instances/{instance}/rendered",
    "/studies/{study}/series/{series}/instances/{instance}/frames/1/rendered",
    *("/studies/{study}/thumbnail", "/studies/{study}/series/{series}/thumbnail"),
    "/studies/{study}/series/{series}/instances/{instance}/thumbnail",
    "/studies/{study}/series/{series}/instances/{instance}/bulkdata/7FE00010",
    *("/studies/{study}/pixeldata", "/studies/{study}/bulkdata"),
    "/wado?requestType=WADO&studyUID={study}&seriesUID={series}&objectUID={instance}",
    *("/studies?StudyInstanceUID={study}", "/series?SeriesInstanceUID={series}"),
    *("/instances?SOPInstanceUID={instance}", "/studies/{study}/series", "/studies/{study}/instances"),
    *("/studies/{study}/series/{series}/instances", "/studies?PatientID={patient}"),
    "/workitems?InputInformationSequence.StudyInstanceUID={study}",
)


def names(dataset: Dataset) -> dict[str, str]:
    uids = {"study": dataset.StudyInstanceUID, "series": dataset.SeriesInstanceUID, "instance": dataset.SOPInstanceUID}
    return {**{name: str(uid) for name, uid in uids.items()}, "patient": str(dataset.PatientID)}


async def stored(gateway: Gateway, seed: int, slices: int = 2, **changes: Any) -> list[Dataset]:
    made = series(slices, seed=seed, patient_id=f"SYN-R{seed}", **changes)
    assert (await gateway.store(*made)).status_code == 200
    return made


async def reject(gateway: Gateway, path: str, code: str = "113037^DCM", scope: str = MANAGE, **options: Any) -> Any:
    return await gateway.http.post(f"{path}/reject/{code}", headers=bearer(scope), **options)


async def restore(gateway: Gateway, path: str) -> Any:
    return await gateway.http.post(f"{path}/restore", headers=bearer(MANAGE))


async def answers(gateway: Gateway, dataset: Dataset) -> dict[str, tuple[int, bytes]]:
    """What each path answers, without the names in it."""
    found = {}
    for path in PATHS:
        response = await gateway.get(path.format(**names(dataset)), scope=EVERYTHING)
        content = response.content
        for name, value in sorted(names(dataset).items(), key=lambda item: -len(item[1])):
            content = content.replace(value.encode(), f"<{name}>".encode())
        found[path] = response.status_code, re.sub(rb"foramen-[0-9a-f]{32}", b"boundary", content)
    return found


def note_in(gateway: Gateway, uid: str) -> Dataset:
    with gateway.orthanc.client() as client:
        (found,) = client.post("/tools/lookup", content=uid).json()
        return dcmread(BytesIO(client.get(f"/instances/{found['ID']}/file").content))


def in_archive(gateway: Gateway, uid: str) -> bool:
    with gateway.orthanc.client() as client:
        return bool(client.post("/tools/lookup", content=uid).json())


@pytest.mark.requirement("IHE RAD TF-2 4.66.4.1.3: what is rejected is hidden on every path until it is restored")
async def test_a_rejected_study_is_as_absent_until_it_is_restored(gateway: Gateway):
    mine, absent = (await stored(gateway, 301))[0], series(1, seed=302, patient_id="SYN-R302")[0]
    await gateway.add_patient(mine.PatientID, "rejected-one")
    await gateway.register(mine.StudyInstanceUID)
    study = f"/studies/{mine.StudyInstanceUID}"
    before, nothing = await answers(gateway, mine), await answers(gateway, absent)
    assert all(before[path] != nothing[path] for path in PATHS)

    done = await reject(gateway, study, json={"reason": "wrong level, SYNTHETIC"})
    assert done.status_code == 200
    assert done.json()["count"] == 2
    assert (await gateway.get(study)).status_code == 404

    (line,) = (await gateway.get("/rejections?StudyInstanceUID=" + str(mine.StudyInstanceUID), scope=MANAGE)).json()
    assert line["code"] == {"value": "113037", "scheme": "DCM", "meaning": "Rejected for Patient Safety Reasons"}
    assert (line["reason"], line["wholeStudy"], line["instances"]) == ("wrong level, SYNTHETIC", True, 2)
    assert line["rejectedBy"]
    await gateway.register(mine.StudyInstanceUID)  # Neither registration nor a look at the archive brings it back.
    assert await answers(gateway, mine) == nothing
    (shown,) = await gateway.imaging_studies(mine.StudyInstanceUID)
    assert shown["status"] != "available"

    assert (await restore(gateway, study)).json() == {"count": 2}
    after = await answers(gateway, mine)
    assert [path for path in PATHS if after[path] != before[path]] in ([], [PATHS[-1]])  # The Task was cancelled.
    assert after[PATHS[-1]][0] == 200
    assert (await restore(gateway, study)).status_code == 404
    await gateway.register(mine.StudyInstanceUID)
    (shown,) = await gateway.imaging_studies(mine.StudyInstanceUID)
    assert (shown["status"], shown["numberOfInstances"]) == ("available", 2)


@pytest.mark.requirement("PS3.3 A.35.4: a rejection note is a Key Object Selection that names what is rejected")
async def test_the_note_is_in_the_archive_and_read_by_an_independent_reader(gateway: Gateway):
    mine = await stored(gateway, 303)
    study, trace = str(mine[0].StudyInstanceUID), "ab" * 16
    headers = bearer(MANAGE) | {"traceparent": f"00-{trace}-{'cd' * 8}-01"}
    call = f"/studies/{study}/reject/113038^DCM"
    done = await gateway.http.post(call, headers=headers, json={"reason": "患者选错"})
    note = note_in(gateway, done.json()["rejectionNote"])
    document = highdicom.ko.KeyObjectSelectionDocument.from_dataset(note)
    assert document.StudyInstanceUID == mine[0].StudyInstanceUID
    assert document.SeriesInstanceUID != mine[0].SeriesInstanceUID
    assert (document.PatientID, document.PatientName) == (mine[0].PatientID, mine[0].PatientName)
    title = document.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodeMeaning) == ("113038", "Incorrect Modality Worklist Entry")
    named = {str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for item in document.content.get_references()}
    assert named == {str(item.SOPInstanceUID) for item in mine}
    assert all(document.resolve_reference(item.SOPInstanceUID)[1] == item.SeriesInstanceUID for item in mine)
    assert document.ContentSequence[0].TextValue == "患者选错"

    async def audited() -> list[dict[str, Any]]:  # The call, and the change in its own transaction.
        events = await gateway.audit_events(trace)
        return events if len(events) == 2 else []

    for event in await gateway.until(audited):
        assert event["subtype"][0]["code"] == "reject"
        assert f"urn:oid:{study}" in [
            item.get("what", {}).get("identifier", {}).get("value") for item in event["entity"]
        ]


@pytest.mark.requirement("PS3.18 10.6: search and metadata count without what is rejected")
async def test_one_rejected_instance_leaves_the_others_and_every_count(gateway: Gateway):
    mine = await stored(gateway, 304, 3)
    study, of_series = (str(mine[0].StudyInstanceUID), str(mine[0].SeriesInstanceUID))
    path = f"/studies/{study}/series/{of_series}"
    before = await gateway.get(f"{path}/metadata")
    assert (await reject(gateway, f"{path}/instances/{mine[0].SOPInstanceUID}", "113001^DCM")).json()["count"] == 1
    after = await gateway.get(f"{path}/metadata")
    assert len(before.json()) == 3
    assert {item["00080018"]["Value"][0] for item in after.json()} == {str(item.SOPInstanceUID) for item in mine[1:]}
    assert after.headers["etag"] != before.headers["etag"]
    (line,) = (await gateway.get(f"/studies?StudyInstanceUID={study}")).json()
    assert (line["00201206"]["Value"], line["00201208"]["Value"], line["00080061"]["Value"]) == ([1], [2], ["MR"])
    again = await reject(gateway, f"{path}/instances/{mine[0].SOPInstanceUID}", "113001^DCM")
    assert again.status_code == 409

    # What was rejected for its quality is shown to those who may reject, and asked for it: nothing else is.
    for query in (f"/studies?StudyInstanceUID={study}", f"/studies/{study}/instances", f"{path}/metadata"):
        looked = await gateway.get(f"{query}{'&' if '?' in query else '?'}rejected=113001", scope=MANAGE)
        assert looked.status_code == 200
        assert len(looked.json()) == 1
    (line,) = (await gateway.get(f"/studies?StudyInstanceUID={study}&rejected=113001", scope=MANAGE)).json()
    assert line["00201208"]["Value"] == [1]
    frame = f"{path}/instances/{mine[0].SOPInstanceUID}/frames/1"
    assert (await gateway.get(frame, scope=MANAGE)).status_code == 404
    assert (await gateway.get(f"{frame}?rejected=113001", scope=MANAGE)).status_code == 200
    assert (await gateway.get(f"{frame}?rejected=113001")).status_code == 403
    assert (await gateway.get(f"{frame}?rejected=113037", scope=MANAGE)).status_code == 400
    other = f"{path}/instances/{mine[1].SOPInstanceUID}/frames/1?rejected=113001"
    assert (await gateway.get(other, scope=MANAGE)).status_code == 404


def note_about(datasets: list[Dataset], code: str) -> Dataset:
    """A rejection note of another system, made by another library (highdicom)."""
    content = highdicom.ko.KeyObjectSelection(highdicom.sr.CodedConcept(code, "DCM", "a reason"), datasets)
    uids = [highdicom.UID() for _ in range(2)]
    return highdicom.ko.KeyObjectSelectionDocument(datasets, content, uids[0], 99, uids[1], 1, manufacturer="ELSEWHERE")


def reasons(response: Any) -> list[int]:
    return [item["00081197"]["Value"][0] for item in response.json().get("00081198", {}).get("Value", [])]


@pytest.mark.requirement("IHE RAD TF-2 4.66: a rejection note that is stored rejects what it names, before or after")
async def test_a_note_stored_by_stow_rejects_now_and_what_comes_later(gateway: Gateway):
    mine = await stored(gateway, 305, 3)
    note = note_about(mine[:2], "113001")
    refused = await gateway.store(note, scope="user/ImagingStudy.crs")  # It may store, and may not reject.
    assert (refused.status_code, reasons(refused)) == (409, [0x0124])
    assert not in_archive(gateway, note.SOPInstanceUID)
    for _ in range(2):  # Idempotent.
        assert (await gateway.store(note, scope=MANAGE)).status_code == 200
    shown = (await gateway.get(f"/studies/{mine[0].StudyInstanceUID}/instances")).json()
    assert [item["00080018"]["Value"][0] for item in shown] == [str(mine[2].SOPInstanceUID)]
    assert in_archive(gateway, note.SOPInstanceUID)

    late = series(2, seed=306, patient_id="SYN-R306")
    assert (await gateway.store(note_about(late[:1], "113037"), scope=MANAGE)).status_code == 200
    answer = await gateway.store(*late)
    assert (answer.status_code, reasons(answer)) == (202, [0xA770])
    shown = (await gateway.get(f"/studies/{late[0].StudyInstanceUID}/instances")).json()
    assert [item["00080018"]["Value"][0] for item in shown] == [str(late[1].SOPInstanceUID)]
    mixed = note_about(mine[2:], "113037")
    mixed.StudyInstanceUID = late[0].StudyInstanceUID
    mixed.PatientID, mixed.PatientName = late[0].PatientID, late[0].PatientName
    answer = await gateway.store(mixed, scope=MANAGE)
    assert reasons(answer) == [0xA901]
    assert (await gateway.get(f"/studies/{mine[2].StudyInstanceUID}/instances")).status_code == 200


@pytest.mark.parametrize(
    ("code", "status", "shown"), [("113001", 200, 404), ("113037", 409, 404), ("113038", 409, 404)]
)
@pytest.mark.requirement("IHE RAD TF-2 4.66: instances that were rejected and are sent again stay hidden")
async def test_what_was_rejected_and_comes_again_stays_hidden(gateway: Gateway, code: str, status: int, shown: int):
    mine = await stored(gateway, int(code) % 1000 + 400, 1)
    path = f"/studies/{mine[0].StudyInstanceUID}"
    assert (await reject(gateway, path, f"{code}^DCM")).status_code == 200
    assert (await gateway.store(*mine)).status_code == status
    assert (await gateway.get(path)).status_code == shown


@pytest.mark.requirement("IHE RAD TF-2 4.66: a study whose retention expired is shown again when it is sent again")
async def test_only_what_is_old_enough_is_rejected_for_its_age_and_it_may_come_again(gateway: Gateway):
    young = await stored(gateway, 307, 1)
    refused = await reject(gateway, f"/studies/{young[0].StudyInstanceUID}", "113039^DCM")
    assert refused.status_code == 409
    assert "retention" in refused.json()["issue"][0]["diagnostics"]
    assert (await gateway.get(f"/studies/{young[0].StudyInstanceUID}")).status_code == 200
    old = await stored(gateway, 308, 1, study_date="19900102")
    path = f"/studies/{old[0].StudyInstanceUID}"
    assert (await reject(gateway, path, "113039^DCM")).status_code == 200
    assert (await gateway.get(path)).status_code == 404
    assert (await gateway.store(*old)).status_code == 200
    assert (await gateway.get(path)).status_code == 200


async def test_who_may_not_change_images_rejects_restores_and_deletes_nothing(gateway: Gateway):
    mine = await stored(gateway, 309, 1)
    path = f"/studies/{mine[0].StudyInstanceUID}"
    for scope in ("user/ImagingStudy.rs", "user/ImagingStudy.crds", "patient/ImagingStudy.cruds", "user/Task.cruds"):
        headers = bearer(scope, patient="somebody")
        assert (await gateway.http.post(f"{path}/reject/113001^DCM", headers=headers)).status_code == 403
        assert (await gateway.http.post(f"{path}/restore", headers=headers)).status_code == 403
        assert (await gateway.http.get("/rejections", headers=headers)).status_code == 403
    assert (await gateway.http.delete(path, headers=bearer(MANAGE))).status_code == 403
    assert (await gateway.http.delete(path, headers=bearer("user/ImagingStudy.crs"))).status_code == 403
    only_delete = bearer("user/ImagingStudy.rds")
    assert (await gateway.http.delete(f"{path}?reject=113001^DCM", headers=only_delete)).status_code == 403
    for code in ("113002^DCM", "113001", "113001^99X"):
        assert (await reject(gateway, path, code)).status_code == 400
    assert (await reject(gateway, path, content=b"[]")).status_code == 400
    assert (await gateway.get(path)).status_code == 200


@pytest.mark.requirement("IHE RAD TF-1 30: a study under a legal hold is neither rejected nor deleted")
async def test_holds_and_terms_refuse_with_their_reason_and_change_nothing(gateway: Gateway, module_database_url: str):
    mine = await stored(gateway, 310, 1)
    study = str(mine[0].StudyInstanceUID)
    path, headers = f"/studies/{study}", bearer(EVERYTHING)
    assert (
        (await gateway.http.delete(path, headers=headers)).json()["issue"][0]["diagnostics"].startswith("The retention")
    )
    with psycopg.connect(module_database_url) as connection:
        place(connection, study, "SYNTHETIC case", WHO)
    for answer in (
        await reject(gateway, path),
        await gateway.http.delete(path, headers=headers),
        await gateway.http.delete(f"{path}?reject=113039^DCM", headers=headers),
    ):
        assert (answer.status_code, answer.json()["issue"][0]["code"]) == (409, "conflict")
        assert "legal hold" in answer.json()["issue"][0]["diagnostics"]
    held = await gateway.store(note_about(mine, "113037"), scope=MANAGE)
    assert reasons(held) == [0x0124]
    assert (await gateway.get(path)).status_code == 200
    with psycopg.connect(module_database_url) as connection:
        release(connection, study, WHO)
    assert (await reject(gateway, path)).status_code == 200
    kept = await gateway.http.delete(path, headers=headers)
    assert kept.status_code == 409
    assert in_archive(gateway, mine[0].SOPInstanceUID)
    assert (await restore(gateway, path)).status_code == 200


class Killed(BaseException):
    """What kill -9 looks like from inside: nothing after it runs."""


async def until_deleted(gateway: Gateway, path: str) -> None:
    async def gone() -> bool:
        found = (await gateway.get("/rejections?StudyInstanceUID=" + path.split("/")[2], scope=MANAGE)).json()
        return not found

    await gateway.until(gone)


@pytest.mark.requirement("IHE RAD TF-1 30: what is rejected can be deleted for good, when nothing keeps it")
async def test_deletion_takes_files_copies_rows_and_the_record_along(
    gateway: Gateway, module_database_url: str, tmp_path: Path
):
    mine = await stored(gateway, 311, 2, study_date="19900102")
    study, uids = str(mine[0].StudyInstanceUID), [str(item.SOPInstanceUID) for item in mine]
    path, headers = f"/studies/{study}", bearer(EVERYTHING)
    await gateway.add_patient(mine[0].PatientID, "deleted-one")
    await gateway.register(study)
    refused = await gateway.http.delete(path, headers=headers)
    assert refused.status_code == 409
    assert "Only what is rejected" in refused.json()["issue"][0]["diagnostics"]
    assert (await gateway.http.delete(f"{path}/series/1.2.3", headers=headers)).status_code == 404

    settings = gateway.orthanc.settings
    online = settings.home / "orthanc" / "storage"
    with gateway.orthanc.client() as client:
        (found,) = client.post("/tools/lookup", content=uids[0]).json()
        name = client.get(f"/instances/{found['ID']}/attachments/dicom/info").json()["Uuid"]
    with psycopg.connect(module_database_url) as connection:
        Nearline(connection, online, tmp_path / "nearline").move(Attachment(name, study))
    carrying_out = gateway.service._rejections.carrying_out
    carrying_out._settings = settings.model_copy(update={"nearline_folder": tmp_path / "nearline"})

    done = await gateway.http.delete(f"{path}?reject=113039^DCM", headers=headers)
    carrying_out._settings = settings
    assert done.status_code == 204
    assert not any(in_archive(gateway, uid) for uid in [*uids, study])
    assert [item for item in (tmp_path / "nearline").rglob("*") if item.is_file()] == []
    assert (await gateway.get(path)).status_code == 404
    with psycopg.connect(module_database_url) as connection:
        for table in ("study", "series", "instance", "nearline_file"):
            query = f"SELECT count(*) FROM dicomweb.{table} WHERE study_instance_uid = %s"  # noqa: S608  our own tables
            assert connection.execute(query, (study,)).fetchone() == (0,), table
        kept = connection.execute(
            "SELECT code, rejected_by FROM dicomweb.rejection WHERE study_instance_uid = %s", (study,)
        ).fetchall()
        assert [row[0] for row in kept] == ["113039"]
    assert (await restore(gateway, path)).status_code == 404
    await gateway.register(study)
    (shown,) = await gateway.imaging_studies(study)
    assert shown["status"] == "entered-in-error"
    # Whoever sends it again brings it back: only its time was over.
    assert (await gateway.store(*mine)).status_code == 200
    assert len((await gateway.get(f"{path}/instances")).json()) == 2


@pytest.mark.parametrize("step", ["intent", "archive", "copies"])
async def test_a_kill_at_any_step_of_a_deletion_ends_in_one_truth(
    gateway: Gateway, module_database_url: str, monkeypatch: pytest.MonkeyPatch, step: str
):
    """The call never returns; what a new process finds in the tables it brings to an end."""
    seed = 320 + ["intent", "archive", "copies"].index(step)
    mine = await stored(gateway, seed, 3, study_date="19900102")
    study, uids = str(mine[0].StudyInstanceUID), [str(item.SOPInstanceUID) for item in mine]
    path = f"/studies/{study}"
    code = "113001" if step == "intent" else "113037"
    note_uid = (await reject(gateway, path, f"{code}^DCM")).json()["rejectionNote"]
    rejections = gateway.service._rejections
    calls = 0

    async def killed(*_: Any) -> None:
        raise Killed

    async def killed_after_one(orthanc_id: str) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise Killed
        await original(orthanc_id)

    def killed_now(*_: Any) -> None:
        raise Killed

    original = rejections.carrying_out._archive.delete
    where = {
        "intent": (rejections.carrying_out, "delete_now", killed),
        "archive": (rejections.carrying_out._archive, "delete", killed_after_one),
        "copies": (rejections.carrying_out, "_sweep", killed_now),
    }[step]
    monkeypatch.setattr(*where)
    context = gateway.service._verifier.verify(bearer(EVERYTHING)["Authorization"].removeprefix("Bearer "))
    with pytest.raises(Killed):
        await rejections.delete(context, Target(study), None, "0" * 32)
    monkeypatch.undo()
    uids.append(note_uid)
    left = [in_archive(gateway, uid) for uid in uids]
    assert left.count(True) == {"intent": 4, "archive": 3, "copies": 0}[step]
    assert (await gateway.get(path)).status_code == 404
    assert (await restore(gateway, path)).status_code == 409  # On its way out: never half of it back.
    again = await gateway.store(*mine)  # Nor is anything acknowledged that would go with it.
    assert reasons(again) == [0x0110 if code == "113001" else 0xA770] * 3

    with psycopg.connect(module_database_url) as connection:  # What a new process does at its start.
        connection.execute("UPDATE dicomweb.deletion SET due_at = now() WHERE finished_at IS NULL")
    await until_deleted(gateway, path)
    assert not any(in_archive(gateway, uid) for uid in [*uids, study])
    # For the patient's safety it stays away; what was of bad quality may come anew.
    assert (await gateway.store(*mine)).status_code == (200 if code == "113001" else 409)
    assert (await gateway.get(path)).status_code == (200 if code == "113001" else 404)


async def test_a_result_that_stands_on_rejected_images_goes_and_comes_with_them(gateway: Gateway):
    mine = await stored(gateway, 331, 1)
    study, of_series = str(mine[0].StudyInstanceUID), str(mine[0].SeriesInstanceUID)
    other = series(1, seed=332, patient_id=str(mine[0].PatientID))[0]
    other.StudyInstanceUID = study
    result = note_about(mine, "113000")  # "Of Interest": of our own making it stands for any result of ours.
    result.Manufacturer = "Foramen"
    assert (await gateway.store(other, result)).status_code == 200
    path = f"/studies/{study}"
    assert (await reject(gateway, f"{path}/series/{of_series}")).json()["count"] == 2
    assert [line["0020000E"]["Value"][0] for line in (await gateway.get(f"{path}/series")).json()] == [
        str(other.SeriesInstanceUID)
    ]
    late = note_about(mine, "113000")
    late.Manufacturer = "Foramen"
    assert (await gateway.store(late)).status_code == 200
    assert len((await gateway.get(f"{path}/series")).json()) == 1
    assert (await restore(gateway, f"{path}/series/{of_series}")).json() == {"count": 3}
    assert len((await gateway.get(f"{path}/series")).json()) == 4
