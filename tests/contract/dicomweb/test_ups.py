"""UPS-RS: workitems are the record's Tasks; the state machine and its lock as the standard has them.

DICOM PS3.18 §11, PS3.4 Annex CC
"""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from pydicom.uid import generate_uid

from dicomweb.store.native_xml import from_xml, to_xml
from tests.builders.dicom import series
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import Gateway

TASKS = "user/Task.cruds user/Patient.rs user/ImagingStudy.rs"
STATION = {"00080100": {"vr": "SH", "Value": ["WS1"]}, "00080102": {"vr": "SH", "Value": ["99TEST"]}}


def attribute(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)}


def workitem(**changes: Any) -> dict[str, Any]:
    """A SYNTHETIC step that is to be done."""
    return {
        "00741000": attribute("CS", "SCHEDULED"),
        "00741200": attribute("CS", "MEDIUM"),
        "00404041": attribute("CS", "READY"),
        "00741204": attribute("LO", "SYNTHETIC segmentation"),
        "00741202": attribute("LO", "SYNTHETIC list"),
        "00404005": attribute("DT", "20261122080000+0000"),
        "00380010": attribute("LO", "VISIT-7"),
    } | changes


def performed() -> dict[str, Any]:
    item = {
        "00404028": attribute("SQ", STATION),
        "00404019": attribute("SQ", STATION),
        "00404050": attribute("DT", "20261122080100+0000"),
        "00404051": attribute("DT", "20261122080200+0000"),
        "00404033": {"vr": "SQ"},
    }
    return {"00741216": attribute("SQ", item)}


class Worklist:
    """Calls as one account makes them."""

    def __init__(self, gateway: Gateway, scope: str = TASKS, **claims: Any) -> None:
        self.gateway, self.scope, self.claims = gateway, scope, claims

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        headers = bearer(self.scope, **self.claims) | {"Content-Type": "application/dicom+json"}
        headers |= options.pop("headers", {})
        return await self.gateway.http.request(method, path, json=body, headers=headers, **options)

    async def create(self, **changes: Any) -> str:
        answer = await self.call("POST", "/workitems", [workitem(**changes)])
        assert answer.status_code == 201, answer.text
        return answer.headers["location"].rsplit("/", 1)[1]

    async def state(self, uid: str, state: str, transaction: str | None) -> Any:
        body = {"00741000": attribute("CS", state)}
        if transaction:
            body["00081195"] = attribute("UI", transaction)
        return await self.call("PUT", f"/workitems/{uid}/state", [body])

    async def read(self, uid: str) -> dict[str, Any]:
        answer = await self.call("GET", f"/workitems/{uid}")
        assert answer.status_code == 200, answer.text
        return answer.json()[0]


@pytest.fixture
def worklist(gateway: Gateway) -> Worklist:
    return Worklist(gateway)


@pytest.mark.requirement("PS3.18 11.4.2: a workitem is created in the SCHEDULED state")
async def test_a_workitem_is_a_task_of_the_record(worklist: Worklist, gateway: Gateway) -> None:
    uid = generate_uid()
    answer = await worklist.call("POST", f"/workitems?workitem={uid}", [workitem()])
    assert (answer.status_code, answer.content) == (201, b"")
    assert answer.headers["location"].endswith(f"/dicom-web/workitems/{uid}")
    (task,) = await gateway.record.search("Task", [("identifier", f"urn:dicom:uid|urn:oid:{uid}")])
    assert (task["status"], task["intent"], task["description"]) == ("requested", "order", "SYNTHETIC segmentation")
    read = await worklist.read(uid)
    assert read["00741000"] == attribute("CS", "SCHEDULED")
    assert read["00380010"] == attribute("LO", "VISIT-7")  # what a Task has no element for is kept too
    assert read["00080018"] == attribute("UI", uid)


@pytest.mark.requirement("PS3.18 11.4.3.1: a workitem that exists is not created again")
async def test_it_is_created_once(worklist: Worklist) -> None:
    uid = await worklist.create()
    assert (await worklist.call("POST", f"/workitems?{uid}", [workitem()])).status_code == 409


@pytest.mark.requirement("PS3.18 11.4.3.1: what the N-CREATE column demands is demanded")
@pytest.mark.parametrize(
    "change",
    [
        {"00741000": attribute("CS", "IN PROGRESS")},
        {"00741200": attribute("CS", "SOON")},
        {"00404041": {"vr": "CS"}},
        {"00741204": {"vr": "LO"}},
        {"00404005": {"vr": "DT"}},
        {"00081195": attribute("UI", "1.2.3")},
    ],
)
async def test_a_malformed_workitem_is_refused(worklist: Worklist, change: dict[str, Any]) -> None:
    uid = generate_uid()
    assert (await worklist.call("POST", f"/workitems?{uid}", [workitem(**change)])).status_code == 400
    assert (await worklist.call("GET", f"/workitems/{uid}")).status_code == 404


@pytest.mark.requirement("PS3.18 11.4.3.2: what was added to a workitem is said")
async def test_a_worklist_label_is_added_and_said(worklist: Worklist) -> None:
    answer = await worklist.call("POST", "/workitems", [workitem(**{"00741202": {"vr": "LO"}})])
    assert answer.status_code == 201
    assert "created with modifications" in answer.headers["warning"]


@pytest.mark.requirement("PS3.18 11.5.3: XML as well as JSON, in both directions")
async def test_xml_says_the_same(worklist: Worklist) -> None:
    uid = generate_uid()
    xml = {"Content-Type": "application/dicom+xml", "Accept": "application/dicom+xml"}
    answer = await worklist.gateway.http.post(
        f"/workitems?{uid}", content=to_xml(workitem()), headers=bearer(TASKS) | xml
    )
    assert answer.status_code == 201
    read = await worklist.call("GET", f"/workitems/{uid}", headers=xml)
    assert from_xml(read.content) == await worklist.read(uid)


@pytest.mark.requirement("PS3.4 CC.1.1: claim, perform, complete, with the Transaction UID as lock")
@pytest.mark.requirement("PS3.18 11.7: the state is changed by who holds the Transaction UID, as the table allows")
async def test_the_way_of_a_workitem(worklist: Worklist) -> None:
    uid, lock = await worklist.create(), generate_uid()
    assert (await worklist.state(uid, "COMPLETED", lock)).status_code == 409  # not in progress yet
    assert (await worklist.state(uid, "IN PROGRESS", None)).status_code == 400
    assert (await worklist.state(uid, "IN PROGRESS", lock)).status_code == 200
    again = await worklist.state(uid, "IN PROGRESS", lock)
    assert again.status_code == 409
    assert "inconsistent" in again.headers["warning"]
    other = await worklist.state(uid, "CANCELED", generate_uid())
    assert (other.status_code, "Transaction UID is incorrect" in other.headers["warning"]) == (400, True)
    without = await worklist.state(uid, "CANCELED", None)
    assert (without.status_code, "Transaction UID is missing" in without.headers["warning"]) == (400, True)
    assert (await worklist.state(uid, "SCHEDULED", lock)).status_code == 400
    assert (await worklist.state(uid, "COMPLETED", lock)).status_code == 409  # C304: nothing says what was performed
    update = await worklist.call("POST", f"/workitems/{uid}", [performed() | {"00081195": attribute("UI", lock)}])
    assert update.status_code == 200
    assert (await worklist.state(uid, "COMPLETED", lock)).status_code == 200
    twice = await worklist.state(uid, "COMPLETED", lock)
    assert (twice.status_code, "already in the requested state" in twice.headers["warning"]) == (200, True)
    assert (await worklist.state(uid, "CANCELED", lock)).status_code == 409
    closed = await worklist.call("POST", f"/workitems/{uid}?transaction-uid={lock}", [performed()])
    assert closed.status_code == 400
    assert (await worklist.read(uid))["00741000"] == attribute("CS", "COMPLETED")


@pytest.mark.requirement("PS3.18 11.5.2: the Transaction UID is never returned")
async def test_who_reads_a_workitem_cannot_take_its_lock(worklist: Worklist, gateway: Gateway) -> None:
    uid, lock = await worklist.create(), generate_uid()
    assert (await worklist.state(uid, "IN PROGRESS", lock)).status_code == 200
    assert "00081195" not in await worklist.read(uid)
    (task,) = await gateway.record.search("Task", [("identifier", f"urn:dicom:uid|urn:oid:{uid}")])
    assert lock not in str(task)


@pytest.mark.requirement("PS3.18 11.6: only who claimed a workitem updates it, and not what is fixed")
async def test_updates_need_the_lock(worklist: Worklist) -> None:
    uid, lock = await worklist.create(), generate_uid()
    label = {"00741204": attribute("LO", "SYNTHETIC other")}
    assert (await worklist.call("POST", f"/workitems/{uid}", [label])).status_code == 200
    assert (await worklist.read(uid))["00741204"] == label["00741204"]
    claimed = await worklist.call("POST", f"/workitems/{uid}?transaction-uid={lock}", [label])
    assert claimed.status_code == 409
    assert (await worklist.state(uid, "IN PROGRESS", lock)).status_code == 200
    assert (await worklist.call("POST", f"/workitems/{uid}", [label])).status_code == 400
    assert (await worklist.call("POST", f"/workitems/{uid}?transaction-uid=1.2", [label])).status_code == 400
    progress = {"00741002": attribute("SQ", {"00741004": attribute("DS", 40)})}
    assert (await worklist.call("POST", f"/workitems/{uid}?transaction-uid={lock}", [progress])).status_code == 200
    assert (await worklist.read(uid))["00741002"]["Value"][0]["00741004"] == attribute("DS", 40)
    fixed = {"00741000": attribute("CS", "COMPLETED"), "00081195": attribute("UI", lock)}
    assert (await worklist.call("POST", f"/workitems/{uid}", [fixed])).status_code == 400
    assert (await worklist.call("POST", "/workitems/1.2.3.4", [label])).status_code == 404


@pytest.mark.requirement("PS3.18 11.8: cancellation is asked for, and done where nobody performs yet")
async def test_cancellation(worklist: Worklist) -> None:
    uid = await worklist.create()
    reason = [{"00741238": attribute("LT", "SYNTHETIC reason")}]
    assert (await worklist.call("POST", f"/workitems/{uid}/cancelrequest", reason)).status_code == 202
    read = await worklist.read(uid)
    assert read["00741000"] == attribute("CS", "CANCELED")
    assert read["00741002"]["Value"][0]["00741238"] == attribute("LT", "SYNTHETIC reason")
    again = await worklist.call("POST", f"/workitems/{uid}/cancelrequest")
    assert (again.status_code, "CANCELED" in again.headers["warning"]) == (409, True)
    running, lock = await worklist.create(), generate_uid()
    await worklist.state(running, "IN PROGRESS", lock)
    assert (await worklist.call("POST", f"/workitems/{running}/cancelrequest")).status_code == 202
    assert (await worklist.read(running))["00741000"] == attribute("CS", "IN PROGRESS")  # its performer decides
    assert (await worklist.call("POST", "/workitems/1.2.3.4/cancelrequest")).status_code == 404


@pytest.mark.requirement("PS3.18 11.9: workitems are found by their attributes, page by page")
async def test_search(worklist: Worklist) -> None:
    visit = uuid.uuid4().hex
    uids = [await worklist.create(**{"00380010": attribute("LO", visit)}) for _ in range(3)]
    await worklist.state(uids[0], "IN PROGRESS", generate_uid())
    asked = f"/workitems?AdmissionID={visit}"
    found = (await worklist.call("GET", asked)).json()
    assert [item["00080018"]["Value"][0] for item in found] == uids
    only = (await worklist.call("GET", f"{asked}&ProcedureStepState=IN%20PROGRESS")).json()
    assert [item["00080018"]["Value"][0] for item in only] == uids[:1]
    page = await worklist.call("GET", f"{asked}&limit=1&offset=1")
    assert [item["00080018"]["Value"][0] for item in page.json()] == uids[1:2]
    assert page.headers["warning"].startswith("299 ")
    assert (await worklist.call("GET", f"/workitems?AdmissionID={visit[:12]}*&ProcedureStepLabel=*segm*")).json()
    assert (await worklist.call("GET", "/workitems?AdmissionID=nobody")).status_code == 204
    assert (await worklist.call("GET", "/workitems?NoSuchAttribute=1")).status_code == 400
    assert (await worklist.call("GET", "/workitems?limit=x")).status_code == 400
    xml = await worklist.call("GET", asked, headers={"Accept": 'multipart/related; type="application/dicom+xml"'})
    assert xml.content.count(b"<NativeDicomModel") == 3


@pytest.mark.requirement("PS3.18 11.5: the analysis of a study is a workitem that names its study and its patient")
async def test_ai_tasks_are_workitems(worklist: Worklist, gateway: Gateway) -> None:
    one = series(1, seed=301, patient_id="SYN-301")[0]
    await gateway.add_patient("SYN-301", "ups-301")
    await gateway.store(one)
    await gateway.register(one.StudyInstanceUID)
    asked = f"/workitems?InputInformationSequence.StudyInstanceUID={one.StudyInstanceUID}"
    (found,) = (await worklist.call("GET", asked)).json()
    assert found["00100020"] == attribute("LO", "SYN-301")
    assert found["00404018"]["Value"][0]["00080100"] == attribute("SH", "analyse-study")
    assert await worklist.read(found["00080018"]["Value"][0]) == found


@pytest.mark.requirement("PS3.18 11: access to workitems is access to Tasks")
async def test_rights_are_those_of_tasks(worklist: Worklist, gateway: Gateway) -> None:
    uid = await worklist.create()
    reader = Worklist(gateway, "user/Task.rs")
    assert (await reader.call("GET", f"/workitems/{uid}")).status_code == 200
    assert (await reader.state(uid, "IN PROGRESS", generate_uid())).status_code == 403
    assert (await reader.call("POST", "/workitems", [workitem()])).status_code == 403
    assert (await reader.call("POST", f"/workitems/{uid}", [performed()])).status_code == 403
    assert (await reader.call("POST", f"/workitems/{uid}/cancelrequest")).status_code == 403
    stranger = Worklist(gateway, "user/ImagingStudy.rs")
    for path in (f"/workitems/{uid}", "/workitems"):
        assert (await stranger.call("GET", path)).status_code == 403
    assert (await stranger.call("POST", f"/workitems/{uid}/subscribers/STRANGER")).status_code == 403
    assert (await gateway.http.get(f"/workitems/{uid}")).status_code == 401
