"""C-ECHO, C-STORE, C-FIND, C-GET and C-MOVE with dcmtk's tools as the peers. SYNTHETIC images."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from tests.builders.dicom import series
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dimse.conftest import Dimse, storescp


@pytest.fixture(scope="module")
async def study(gateway: Gateway, dimse: Dimse) -> list[Dataset]:
    """Three instances sent by storescu, indexed and registered."""
    await gateway.add_patient("SYN-1", "dimse-one")
    sent = series(3, seed=41)
    status, said = await dimse.send(*sent)
    assert status == 0, said
    await gateway.until(lambda: gateway.imaging_studies(str(sent[0].StudyInstanceUID)))
    return sent


@pytest.mark.requirement("PS3.4 Annex A: verification")
async def test_echo(dimse: Dimse) -> None:
    assert (await dimse.tool("echoscu", "127.0.0.1", str(dimse.port)))[0] == 0


@pytest.mark.requirement("PS3.8 9.3.4: association rejected, calling AE title not recognised")
async def test_unknown_caller_is_rejected_and_audited(gateway: Gateway, dimse: Dimse) -> None:
    status, said = await dimse.tool("echoscu", "-v", "127.0.0.1", str(dimse.port), title="NOBODY")
    assert status != 0
    assert "Calling AE Title Not Recognized" in said
    status, said = await dimse.tool("echoscu", "-v", "127.0.0.1", str(dimse.port), called="OTHER")
    assert status != 0
    assert "Called AE Title Not Recognized" in said

    async def alerts() -> list[dict]:
        found = await gateway.record.search("AuditEvent", [("type", "110113"), ("_count", "50")])
        return [one for one in found if any(a.get("altId") == "aet:NOBODY" for a in one["agent"])]

    event = (await gateway.until(alerts))[0]
    assert event["outcome"] == "8"


@pytest.mark.requirement("PS3.4 B.2: storage as SCP")
async def test_stored_instances_are_in_the_archive_and_found(gateway: Gateway, study: list[Dataset]) -> None:
    uid = str(study[0].StudyInstanceUID)
    response = await gateway.get(f"/studies/{uid}/series")
    assert response.status_code == 200
    assert response.json()[0]["00201209"]["Value"] == [3]


@pytest.mark.requirement("PS3.4 C.6.2: study root query at all levels")
async def test_find_at_all_levels(dimse: Dimse, study: list[Dataset]) -> None:
    first = study[0]
    found, said = await dimse.find(
        "QueryRetrieveLevel=STUDY", "PatientID=SYN-1", "StudyInstanceUID", "PatientName", "ModalitiesInStudy"
    )
    assert [one.StudyInstanceUID for one in found] == [first.StudyInstanceUID], said
    assert found[0].PatientName == first.PatientName
    assert found[0].RetrieveAETitle == "FORAMEN_QR"
    assert "SeriesInstanceUID" not in found[0]
    keys = (f"StudyInstanceUID={first.StudyInstanceUID}", "SeriesInstanceUID", "Modality=MR")
    found, said = await dimse.find("QueryRetrieveLevel=SERIES", *keys)
    assert [one.SeriesInstanceUID for one in found] == [first.SeriesInstanceUID], said
    keys = (
        f"StudyInstanceUID={first.StudyInstanceUID}",
        f"SeriesInstanceUID={first.SeriesInstanceUID}",
        "SOPInstanceUID",
        "InstanceNumber",
    )
    found, said = await dimse.find("QueryRetrieveLevel=IMAGE", *keys)
    assert {one.SOPInstanceUID for one in found} == {one.SOPInstanceUID for one in study}, said


@pytest.mark.requirement("PS3.4 C.6.1: patient root query")
async def test_find_in_patient_root(dimse: Dimse, study: list[Dataset]) -> None:
    found, said = await dimse.find("QueryRetrieveLevel=PATIENT", "PatientID=SYN-*", "PatientName", model="-P")
    assert [one.PatientID for one in found] == ["SYN-1"], said
    found, _ = await dimse.find("QueryRetrieveLevel=STUDY", "PatientID=SYN-1", "StudyInstanceUID", model="-P")
    assert [one.StudyInstanceUID for one in found] == [study[0].StudyInstanceUID]


@pytest.mark.requirement("PS3.4 C.4.1.3.1: unique keys of the levels above")
async def test_find_without_the_unique_key_above_is_refused(dimse: Dimse, study: list[Dataset]) -> None:
    found, said = await dimse.find("QueryRetrieveLevel=SERIES", "SeriesInstanceUID")
    assert found == []
    assert "DoesNotMatchSOPClass" in said, said


@pytest.mark.requirement("PS3.4 C.4.3: retrieve by C-GET")
async def test_get(dimse: Dimse, study: list[Dataset]) -> None:
    target = dimse.folder / "got"
    target.mkdir()
    uid = str(study[0].StudyInstanceUID)
    status, said = await dimse.tool(
        *("getscu", "-S", "-v", "-od", str(target), "-k", "QueryRetrieveLevel=STUDY"),
        *("-k", f"StudyInstanceUID={uid}", "127.0.0.1", str(dimse.port)),
    )
    assert status == 0, said
    got = {dataset.SOPInstanceUID: dataset for dataset in map(dcmread, target.iterdir())}
    assert set(got) == {one.SOPInstanceUID for one in study}
    for one in study:
        assert np.array_equal(got[one.SOPInstanceUID].pixel_array, one.pixel_array)


@pytest.mark.requirement("PS3.4 C.4.2: retrieve by C-MOVE to a registered destination")
async def test_move(dimse: Dimse, study: list[Dataset]) -> None:
    with storescp(dimse.folder) as (port, target):
        dimse.account("DEST", frozenset(), port=port)
        status, said = await dimse.tool(
            *("movescu", "-S", "-v", "-aem", "DEST", "-k", "QueryRetrieveLevel=SERIES"),
            *("-k", f"StudyInstanceUID={study[0].StudyInstanceUID}"),
            *("-k", f"SeriesInstanceUID={study[0].SeriesInstanceUID}", "127.0.0.1", str(dimse.port)),
        )
        assert status == 0, said
        received = {dcmread(path).SOPInstanceUID for path in target.iterdir()}
    assert received == {one.SOPInstanceUID for one in study}


@pytest.mark.requirement("PS3.4 C.4.2.1.5: A801H, move destination unknown")
async def test_move_to_nobody(dimse: Dimse, study: list[Dataset]) -> None:
    _, said = await dimse.tool(
        *("movescu", "-S", "-v", "-aem", "NOBODY", "-k", "QueryRetrieveLevel=STUDY"),
        *("-k", f"StudyInstanceUID={study[0].StudyInstanceUID}", "127.0.0.1", str(dimse.port)),
    )
    assert "MoveDestinationUnknown" in said or "0xa801" in said.casefold(), said


@pytest.mark.requirement("PS3.15 A.5.3: audit of queries, imports and transfers")
async def test_queries_and_transfers_are_audited(gateway: Gateway, dimse: Dimse, study: list[Dataset]) -> None:
    wanted = {("110112", "C-FIND"), ("110107", "C-STORE"), ("110102", "C-GET"), ("110104", "C-GET")}
    wanted |= {("110102", "C-MOVE"), ("110104", "C-MOVE")}

    async def events() -> dict[tuple[str, str], dict]:
        found = await gateway.record.search("AuditEvent", [("agent-name", "dimse"), ("_count", "200")])
        kinds = {(one["type"]["code"], one["subtype"][0]["code"]): one for one in found}
        return kinds if wanted <= set(kinds) else {}

    found = await gateway.until(events)
    moved = found["110102", "C-MOVE"]
    assert moved["agent"][0]["altId"] == "aet:PEER"
    assert any(agent.get("altId") == "aet:DEST" for agent in moved["agent"])
    names = [entity.get("what", {}).get("identifier", {}).get("value") for entity in moved["entity"]]
    assert f"urn:oid:{study[0].StudyInstanceUID}" in names
    assert any(entity.get("what", {}).get("reference") == "Patient/dimse-one" for entity in moved["entity"])


@pytest.mark.requirement("PS3.4 C.4.3.1.4: compressed images are sent to a peer that takes plain ones only")
async def test_compressed_instances_are_decompressed_for_who_needs_it(
    gateway: Gateway, dimse: Dimse, study: list[Dataset]
) -> None:
    one = series(1, seed=43)[0]
    plain = one.pixel_array.copy()
    one.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    status, said = await dimse.tool("storescu", "-xr", "-v", "+sd", "127.0.0.1", str(dimse.port), str(dimse.files(one)))
    assert status == 0, said
    uid = str(one.StudyInstanceUID)
    await gateway.until(lambda: gateway.imaging_studies(uid))
    target = dimse.folder / "decompressed"
    target.mkdir()
    status, said = await dimse.tool(
        *("getscu", "-S", "-v", "-xi", "-od", str(target), "-k", "QueryRetrieveLevel=STUDY"),
        *("-k", f"StudyInstanceUID={uid}", "127.0.0.1", str(dimse.port)),
    )
    assert status == 0, said
    got = dcmread(next(target.iterdir()))
    assert not got.file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(got.pixel_array, plain)
