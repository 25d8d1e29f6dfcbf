"""Storage commitment, MPPS, worklist, forwarding, prefetching, and a kill in between. SYNTHETIC images."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    MRImageStorage,
    StorageCommitmentPushModel,
)

from dicomweb.dimse.commitment import WELL_KNOWN
from dicomweb.dimse.rules import add_forward_rule, add_prefetch_rule, rules_status
from dicomweb.dimse.worklist import STATION
from foramen.supervisor.ports import free_port
from terminology import systems
from tests.builders.dicom import encoded, series
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dimse.conftest import AET, Dimse, _await_port, storescp


async def _stored(gateway: Gateway, dimse: Dimse, seed: int, slices: int = 2, **changes: Any) -> list[Dataset]:
    sent = series(slices, seed=seed, **changes)
    status, said = await dimse.send(*sent)
    assert status == 0, said
    await gateway.until(lambda: gateway.imaging_studies(str(sent[0].StudyInstanceUID)))
    return sent


@contextlib.contextmanager
def _associated(dimse: Dimse, *classes: Any, title: str = "PEER") -> Iterator[Any]:
    caller = AE(ae_title=title)
    for one in classes:
        caller.add_requested_context(one)
    association = caller.associate("127.0.0.1", dimse.port, ae_title=AET)
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


@pytest.fixture(scope="module", autouse=True)
async def patient(gateway: Gateway, dimse: Dimse) -> None:
    await gateway.add_patient("SYN-1", "dimse-two")


@pytest.mark.requirement("PS3.7 C.5.7: duplicate SOP instance is refused with 0111H")
async def test_other_pixels_under_a_known_uid_are_refused(gateway: Gateway, dimse: Dimse) -> None:
    sent = await _stored(gateway, dimse, 50)
    status, said = await dimse.send(*sent)
    assert status == 0, said
    assert "0x111" not in said
    changed = series(2, seed=50)
    changed[0].PixelData = bytes(len(changed[0].PixelData))
    _, said = await dimse.send(changed[0])
    assert "0x111" in said, said
    with gateway.orthanc.client() as client:
        identity = client.post("/tools/lookup", content=str(sent[0].SOPInstanceUID)).json()[0]["ID"]
        kept = client.get(f"/instances/{identity}/file").content
    assert encoded(sent[0])[-len(sent[0].PixelData) :] == kept[-len(sent[0].PixelData) :]


@pytest.mark.requirement("PS3.4 B.2.3: A900H, the study belongs to another patient")
async def test_a_study_of_another_patient_is_refused(gateway: Gateway, dimse: Dimse) -> None:
    sent = await _stored(gateway, dimse, 51)
    other = series(3, seed=51)[2]
    other.StudyInstanceUID, other.SOPInstanceUID = sent[0].StudyInstanceUID, generate_uid()
    other.file_meta.MediaStorageSOPInstanceUID = other.SOPInstanceUID
    other.PatientID = "SYN-OTHER"
    before = gateway.orthanc.count()
    _, said = await dimse.send(other)
    assert "DoesNotMatchSOPClass" in said or "0xa900" in said.casefold(), said
    assert gateway.orthanc.count() == before


@pytest.mark.requirement("PS3.8 9.3.3.2: only the services an account has a right to are offered")
async def test_rights_decide_what_is_offered(dimse: Dimse) -> None:
    dimse.account("ECHOER", frozenset())
    assert (await dimse.tool("echoscu", "127.0.0.1", str(dimse.port), title="ECHOER"))[0] == 0
    status, said = await dimse.send(series(1, seed=52)[0], title="ECHOER")
    assert status != 0
    assert "No Acceptable Presentation Contexts" in said or "No presentation context" in said, said
    dimse.account("AWAY", host="192.0.2.1")
    status, said = await dimse.tool("echoscu", "-v", "127.0.0.1", str(dimse.port), title="AWAY")
    assert "Calling AE Title Not Recognized" in said


class _Modality:
    """A peer that asks for commitment and takes the report: dcmtk has no such tool."""

    def __init__(self) -> None:
        self.port, self.reports = free_port(), []
        listener = AE(ae_title="MODALITY")
        listener.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._take)]
        self.server = listener.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def _take(self, event: Any) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information))
        return 0x0000, None


@pytest.mark.requirement("PS3.4 Annex J: storage commitment push model")
async def test_commitment(gateway: Gateway, dimse: Dimse) -> None:
    sent = await _stored(gateway, dimse, 53)
    modality = _Modality()
    try:
        dimse.account("MODALITY", frozenset({"commit"}), port=modality.port)
        missing, wrong = str(generate_uid()), "1.2.840.10008.5.1.4.1.1.2"

        def ask(*items: tuple[str, str]) -> str:
            request = Dataset()
            request.TransactionUID = generate_uid()
            request.ReferencedSOPSequence = []
            for sop_class, uid in items:
                item = Dataset()
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
                request.ReferencedSOPSequence.append(item)
            with _associated(dimse, StorageCommitmentPushModel, title="MODALITY") as association:
                answer, _ = association.send_n_action(request, 1, StorageCommitmentPushModel, WELL_KNOWN)
            assert answer.Status == 0
            return str(request.TransactionUID)

        whole = await asyncio.to_thread(ask, *((MRImageStorage, str(one.SOPInstanceUID)) for one in sent))
        await gateway.until(_async(lambda: modality.reports))
        kind, report = modality.reports.pop()
        assert (kind, str(report.TransactionUID)) == (1, whole)
        assert {item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence} == {
            one.SOPInstanceUID for one in sent
        }
        await asyncio.to_thread(ask, (MRImageStorage, missing), (wrong, str(sent[0].SOPInstanceUID)))
        await gateway.until(_async(lambda: modality.reports))
        kind, report = modality.reports.pop()
        assert kind == 2
        reasons = {item.ReferencedSOPInstanceUID: item.FailureReason for item in report.FailedSOPSequence}
        assert reasons == {missing: 0x0112, sent[0].SOPInstanceUID: 0x0119}
        assert "ReferencedSOPSequence" not in report
    finally:
        modality.server.shutdown()


def _async(look: Any) -> Any:
    async def looked() -> Any:
        return look()

    return looked


@pytest.mark.requirement("PS3.4 F.7: modality performed procedure step")
async def test_performed_step_becomes_a_procedure(gateway: Gateway, dimse: Dimse) -> None:
    uid = str(generate_uid())
    begun = Dataset()
    begun.SpecificCharacterSet = "ISO_IR 192"
    begun.PatientID, begun.IssuerOfPatientID, begun.PatientName = "SYN-1", "DEMO", "SYNTHETIC^ONE"
    begun.PerformedProcedureStepID, begun.PerformedStationAETitle = "STEP-1", "PEER"
    begun.PerformedProcedureStepStartDate, begun.PerformedProcedureStepStartTime = "20260105", "101500"
    begun.PerformedProcedureStepStatus, begun.Modality = "IN PROGRESS", "MR"
    begun.PerformedProcedureStepDescription = "腰椎磁共振 SYNTHETIC"
    ended = Dataset()
    ended.PerformedProcedureStepStatus = "COMPLETED"
    ended.PerformedProcedureStepEndDate, ended.PerformedProcedureStepEndTime = "20260105", "103000"

    def play() -> list[int]:
        with _associated(dimse, ModalityPerformedProcedureStep) as association:
            statuses = [association.send_n_create(begun, ModalityPerformedProcedureStep, uid)[0].Status]
            statuses.append(association.send_n_create(begun, ModalityPerformedProcedureStep, uid)[0].Status)
            for _ in range(2):
                statuses.append(association.send_n_set(ended, ModalityPerformedProcedureStep, uid)[0].Status)
            other = str(generate_uid())
            statuses.append(association.send_n_set(ended, ModalityPerformedProcedureStep, other)[0].Status)
        return statuses

    assert await asyncio.to_thread(play) == [0, 0x0111, 0, 0x0110, 0x0112]

    async def completed() -> Any:
        found = await gateway.record.search("Procedure", [("identifier", f"{systems.DICOM_UID}|urn:oid:{uid}")])
        assert len(found) <= 1
        return [one for one in found if one["status"] == "completed"]

    procedure = (await gateway.until(completed))[0]
    assert procedure["subject"]["reference"] == "Patient/dimse-two"
    assert procedure["performedPeriod"] == {"start": "2026-01-05", "end": "2026-01-05"}
    assert procedure["code"]["text"] == "腰椎磁共振 SYNTHETIC"


def _order(identity: str, patient: str, modality: str, station: str, day: str) -> dict[str, Any]:
    accession = {"coding": [{"system": systems.IDENTIFIER_TYPE, "code": "ACSN"}]}
    return {
        "resourceType": "ServiceRequest",
        "id": identity,
        "identifier": [{"type": accession, "system": f"{systems.BASE}/identifier/accession", "value": f"A-{identity}"}],
        "status": "active",
        "intent": "order",
        "code": {"text": "腰椎 MR 平扫 SYNTHETIC"},
        "orderDetail": [{"coding": [{"system": systems.DCM, "code": modality}]}],
        "subject": {"reference": f"Patient/{patient}"},
        "occurrenceDateTime": f"{day}T09:30:00+08:00",
        "performer": [{"identifier": {"system": STATION, "value": station}}],
    }


@pytest.mark.requirement("PS3.4 Annex K: basic worklist management")
async def test_worklist(gateway: Gateway, dimse: Dimse) -> None:
    for order in (
        _order("mwl-1", "dimse-two", "MR", "SCANNER1", "2026-12-01"),
        _order("mwl-2", "dimse-two", "CT", "SCANNER2", "2026-12-01"),
        _order("mwl-3", "dimse-two", "MR", "SCANNER1", "2026-12-09"),
        _order("mwl-4", "dimse-two", "MR", "SCANNER1", "2026-12-01") | {"status": "completed"},
    ):
        await gateway.record.update(order)
    step = "ScheduledProcedureStepSequence[0]"
    found, said = await dimse.find(
        *("AccessionNumber", "PatientID", "StudyInstanceUID", "RequestedProcedureDescription"),
        *(f"{step}.Modality=MR", f"{step}.ScheduledStationAETitle=SCANNER1"),
        f"{step}.ScheduledProcedureStepStartDate=20261130-20261202",
        f"{step}.ScheduledProcedureStepStartTime",
        model="-W",
    )
    assert [one.AccessionNumber for one in found] == ["A-mwl-1"], said
    one = found[0]
    assert (one.PatientID, one.RequestedProcedureDescription) == ("SYN-1", "腰椎 MR 平扫 SYNTHETIC")
    assert one.SpecificCharacterSet == "ISO_IR 192"
    assert one.StudyInstanceUID.startswith("2.25.")
    assert one.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartTime == "093000"
    assert "ScheduledProcedureStepID" not in one.ScheduledProcedureStepSequence[0]
    found, _ = await dimse.find("PatientID=SYN-1", f"{step}.Modality", "AccessionNumber", model="-W")
    assert {item.AccessionNumber for item in found} == {"A-mwl-1", "A-mwl-2", "A-mwl-3"}
    found, _ = await dimse.find("PatientID=NONE", f"{step}.Modality", "AccessionNumber", model="-W")
    assert found == []


@pytest.mark.requirement("PS3.4 C.2.2.2: character set of the answers follows the request")
async def test_answers_in_gb18030_when_asked_so(gateway: Gateway, dimse: Dimse) -> None:
    await gateway.record.update(_order("mwl-5", "dimse-two", "MR", "SCANNER5", "2026-12-20"))
    query = Dataset()
    query.SpecificCharacterSet = "GB18030"
    query.RequestedProcedureDescription = "腰椎*"
    query.AccessionNumber = "A-mwl-5"

    def ask() -> list[Dataset]:
        with _associated(dimse, ModalityWorklistInformationFind) as association:
            return [one for _, one in association.send_c_find(query, ModalityWorklistInformationFind) if one]

    found = await asyncio.to_thread(ask)
    assert [one.SpecificCharacterSet for one in found] == ["GB18030"]
    assert found[0].RequestedProcedureDescription == "腰椎 MR 平扫 SYNTHETIC"


@pytest.mark.requirement("PS3.4 Annex B: storage as SCU, store and forward")
async def test_forwarding_goes_on_when_the_destination_comes_back(gateway: Gateway, dimse: Dimse) -> None:
    dimse.account("ARCHIVE2", frozenset(), port=free_port())
    # A study of another test that is registered once more from now on would be forwarded too, and rightly.
    await gateway.until(_async(lambda: dimse.rows("SELECT count(*) FROM dicomweb.arrival")[0][0] == 0))
    add_forward_rule(dimse.database_url, "mr-out", "ARCHIVE2", modalities=["MR"])
    sent = await _stored(gateway, dimse, 54)

    def jobs() -> dict[str, int]:
        return next(one["jobs"] for one in rules_status(dimse.database_url, "forward") if one["name"] == "mr-out")

    await gateway.until(_async(lambda: jobs().get("waiting", 0) >= 2))
    query = "SELECT count(*) FROM dicomweb.forward_job WHERE attempts > 0 AND last_fault IS NOT NULL"
    await gateway.until(_async(lambda: dimse.rows(query)[0][0] >= 2))
    with storescp(dimse.folder, title="ARCHIVE2") as (port, target):
        dimse.account("ARCHIVE2", frozenset(), port=port)
        with_now = "UPDATE dicomweb.forward_job SET due_at = now() RETURNING 1"
        dimse.rows(with_now)
        await gateway.until(_async(lambda: set(jobs()) == {"sent"}))
        # Studies of other tests that are registered once more meanwhile go along.
        assert {dcmread(path).SOPInstanceUID for path in target.iterdir()} >= {one.SOPInstanceUID for one in sent}
    dimse.rows("DELETE FROM dicomweb.forward_rule RETURNING 1")


@pytest.mark.requirement("IHE RAD TF-2 4.66: a rejection note that is sent rejects and is sent on")
async def test_a_rejection_note_by_c_store_rejects_and_goes_where_the_images_went(
    gateway: Gateway, dimse: Dimse
) -> None:
    dimse.account("REJECTER", frozenset(("store", "reject")))
    with storescp(dimse.folder, title="ARCHIVE3") as (port, target):
        dimse.account("ARCHIVE3", frozenset(), port=port)
        add_forward_rule(dimse.database_url, "mr-away", "ARCHIVE3", modalities=["MR"])
        sent = await _stored(gateway, dimse, 57, 3)
        study = str(sent[0].StudyInstanceUID)

        def away() -> set[str]:
            return {str(dcmread(path).SOPInstanceUID) for path in target.iterdir() if path.stat().st_size}

        # Studies of other tests that are registered once more meanwhile go along: never "exactly these".
        await gateway.until(_async(lambda: away() >= {str(one.SOPInstanceUID) for one in sent}))
        title = highdicom.sr.CodedConcept("113037", "DCM", "Rejected for Patient Safety Reasons")
        content = highdicom.ko.KeyObjectSelection(title, sent[:2])
        uids = [generate_uid() for _ in range(2)]
        note = highdicom.ko.KeyObjectSelectionDocument(sent[:2], content, uids[0], 99, uids[1], 1, manufacturer="X")

        status, said = await dimse.send(note)  # PEER has no right to reject.
        assert "0x124" in said.lower(), said
        status, said = await dimse.send(note, title="REJECTER")
        assert status == 0, said
        of_series = f"SeriesInstanceUID={sent[0].SeriesInstanceUID}"
        level = ("QueryRetrieveLevel=IMAGE", f"StudyInstanceUID={study}", of_series)
        found, _ = await dimse.find(*level, "SOPInstanceUID")
        assert [one.SOPInstanceUID for one in found] == [sent[2].SOPInstanceUID]
        folder = dimse.folder / "after-rejection"
        folder.mkdir()
        keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}")
        await dimse.tool("getscu", "-S", "-od", str(folder), *keys, "127.0.0.1", str(dimse.port))
        assert [dcmread(path).SOPInstanceUID for path in folder.iterdir()] == [sent[2].SOPInstanceUID]
        with _associated(dimse, MRImageStorage) as association:
            assert association.send_c_store(sent[0]).Status == 0xA770
        await gateway.until(_async(lambda: str(note.SOPInstanceUID) in away()))
    dimse.rows("DELETE FROM dicomweb.forward_rule RETURNING 1")


@contextlib.contextmanager
def _outside_pacs(folder: Path, studies: list[Path]) -> Iterator[int]:
    """dcmtk's dcmqrscp with some studies in it."""
    port, area = free_port(), folder / "outside"
    (area / "OUTSIDE").mkdir(parents=True)
    (area / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\nHostTable BEGIN\nHostTable END\n"
        f"VendorTable BEGIN\nVendorTable END\nAETable BEGIN\n"
        f"OUTSIDE {area / 'OUTSIDE'} RW (500, 1024mb) ANY\nAETable END\n"
    )
    for study in studies:
        files = sorted(str(path) for path in study.iterdir())
        copies = []
        for path in files:
            copy = area / "OUTSIDE" / f"{time.monotonic_ns()}.dcm"
            copy.write_bytes(Path(path).read_bytes())
            copies.append(str(copy))
        subprocess.run(["dcmqridx", str(area / "OUTSIDE"), *copies], check=True, capture_output=True)
    process = subprocess.Popen(
        ["dcmqrscp", "-c", str(area / "dcmqrscp.cfg")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _await_port(port)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.requirement("PS3.4 C.4.3: query and retrieve as SCU, prefetch of priors")
async def test_priors_are_fetched_from_an_outside_pacs(gateway: Gateway, dimse: Dimse) -> None:
    prior = series(2, seed=60, study_date="20240301")
    too_old = series(1, seed=61, study_date="20100101")
    stranger = series(1, seed=62, study_date="20240301", patient_id="SYN-2")
    with _outside_pacs(dimse.folder, [dimse.files(*one) for one in (prior, too_old, stranger)]) as port:
        dimse.account("OUTSIDE", frozenset(), port=port)
        add_prefetch_rule(dimse.database_url, "priors", "OUTSIDE", modalities=["MR"], years=5)
        await _stored(gateway, dimse, 55)
        found = await gateway.until(lambda: gateway.imaging_studies(str(prior[0].StudyInstanceUID)))
        assert found[0]["numberOfInstances"] == 2
        done = "SELECT max(studies) FROM dicomweb.prefetch_job WHERE state = 'done'"
        await gateway.until(_async(lambda: dimse.rows(done)[0][0] == 1))
    for one in (too_old, stranger):
        assert await gateway.imaging_studies(str(one[0].StudyInstanceUID)) == []
    dimse.rows("DELETE FROM dicomweb.prefetch_rule RETURNING 1")


@pytest.mark.requirement("PS3.4 B.2.2: what was acknowledged is kept")
async def test_a_kill_loses_nothing_that_was_acknowledged(gateway: Gateway, dimse: Dimse) -> None:
    sent = series(60, seed=56, size=(64, 64))
    acknowledged: list[str] = []
    enough = threading.Event()

    def send() -> None:
        caller = AE(ae_title="PEER")
        caller.add_requested_context(MRImageStorage)
        caller.dimse_timeout = 5
        association = caller.associate("127.0.0.1", dimse.port, ae_title=AET)
        for one in sent:
            try:
                answer = association.send_c_store(one)
            except RuntimeError:
                return
            if "Status" in answer and answer.Status == 0:
                acknowledged.append(str(one.SOPInstanceUID))
            if len(acknowledged) == 15:
                enough.set()

    sender = threading.Thread(target=send)
    sender.start()
    assert await asyncio.to_thread(enough.wait, 30)
    dimse.kill()
    await asyncio.to_thread(sender.join, 30)
    assert 15 <= len(acknowledged) < 60
    await asyncio.to_thread(dimse.start)
    left = list((dimse.settings.home / "dimse" / "incoming").iterdir())
    assert left == []
    study = str(sent[0].StudyInstanceUID)

    async def all_found() -> bool:
        response = await gateway.get(f"/studies/{study}/instances")
        found = {one["00080018"]["Value"][0] for one in response.json()} if response.status_code == 200 else set()
        return set(acknowledged) <= found

    await gateway.until(all_found)
    status, said = await dimse.send(*sent)
    assert status == 0, said
