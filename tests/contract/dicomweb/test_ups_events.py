"""Event reports over a real WebSocket, read by PyPI's websockets: single, global and filtered subscriptions.

DICOM PS3.18 §8.10, §11.10 to §11.13; PS3.4 §CC.2.3, §CC.2.4
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydicom.uid import generate_uid
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dicomweb.workitems.workitem import FILTERED_WORKLIST, WORKLIST
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dicomweb.test_ups import TASKS, Worklist, attribute

pytestmark = pytest.mark.requirement("PS3.18 11.13: changes of workitems are reported to their subscribers")


def address(gateway: Gateway, aetitle: str, start: str = "/ws/subscribers/") -> str:
    return f"{gateway.orthanc.settings.internal_origin.replace('http', 'ws')}/dicom-web{start}{aetitle}"


@asynccontextmanager
async def channel(
    gateway: Gateway, aetitle: str, scope: str = TASKS, start: str = "/ws/subscribers/", **claims: Any
) -> AsyncIterator[ClientConnection]:
    where = address(gateway, aetitle, start)
    async with connect(where, additional_headers=bearer(scope, **claims), proxy=None) as socket:
        yield socket


async def reports(socket: ClientConnection, count: int, timeout_s: float = 10.0) -> list[dict[str, Any]]:
    async with asyncio.timeout(timeout_s):
        return [json.loads(await socket.recv()) for _ in range(count)]


async def nothing(socket: ClientConnection, for_s: float = 2.0) -> bool:
    """Whether nothing comes while the watcher looks several times."""
    try:
        async with asyncio.timeout(for_s):
            await socket.recv()
    except TimeoutError:
        return True
    return False


def facts(report: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Workitem, event type, state."""
    return tuple(report.get(tag, {}).get("Value", [None])[0] for tag in ("00001000", "00001002", "00741000"))  # type: ignore[return-value]


@pytest.fixture
def aetitle() -> str:
    return uuid.uuid4().hex[:12].upper()


@pytest.mark.requirement("PS3.18 11.10: a workitem is subscribed to")
@pytest.mark.requirement("PS3.18 11.11: a subscription is ended")
@pytest.mark.requirement("PS3.4 CC.2.4: state, cancellation and progress are reported")
async def test_a_workitem_is_followed_from_claim_to_end(gateway: Gateway, aetitle: str) -> None:
    worklist, lock = Worklist(gateway), generate_uid()
    uid, other = await worklist.create(), await worklist.create()
    async with channel(gateway, aetitle) as socket:
        made = await worklist.call("POST", f"/workitems/{uid}/subscribers/{aetitle}?deletionlock=true")
        assert made.status_code == 201
        assert made.headers["content-location"].startswith("ws")
        assert made.headers["content-location"].endswith(f"/dicom-web/ws/subscribers/{aetitle}")
        assert "Deletion Lock not granted" in made.headers["warning"]
        (now,) = await reports(socket, 1)  # the state at the time of the subscription
        assert facts(now) == (uid, 1, "SCHEDULED")
        assert now["00404041"] == attribute("CS", "READY")
        await worklist.state(other, "IN PROGRESS", generate_uid())
        await worklist.state(uid, "IN PROGRESS", lock)
        (claimed,) = await reports(socket, 1)
        assert facts(claimed) == (uid, 1, "IN PROGRESS")
        progress = {"00741002": attribute("SQ", {"00741004": attribute("DS", 40)})}
        await worklist.call("POST", f"/workitems/{uid}?transaction-uid={lock}", [progress])
        (going,) = await reports(socket, 1)
        assert facts(going)[:2] == (uid, 3)
        assert going["00741002"]["Value"][0]["00741004"] == attribute("DS", 40)
        wish = [{"00741238": attribute("LT", "SYNTHETIC wish")}]
        await worklist.call("POST", f"/workitems/{uid}/cancelrequest", wish)
        (asked,) = await reports(socket, 1)
        assert facts(asked)[:2] == (uid, 2)
        assert asked["00741238"] == attribute("LT", "SYNTHETIC wish")
        await worklist.state(uid, "CANCELED", lock)
        (ended,) = await reports(socket, 1)
        assert facts(ended) == (uid, 1, "CANCELED")
        assert (await worklist.call("DELETE", f"/workitems/{uid}/subscribers/{aetitle}")).status_code == 200
        assert (await worklist.call("DELETE", f"/workitems/{uid}/subscribers/{aetitle}")).status_code == 404


@pytest.mark.requirement("PS3.18 11.10: the worklist is subscribed to")
@pytest.mark.requirement("PS3.18 11.12: a subscription of the worklist is suspended")
async def test_the_whole_worklist_until_it_is_suspended(gateway: Gateway, aetitle: str) -> None:
    worklist, path = Worklist(gateway), f"/workitems/{WORKLIST}/subscribers/{aetitle}"
    assert (await worklist.call("POST", path)).status_code == 201
    async with channel(gateway, aetitle, start="/subscribers/") as socket:
        await asyncio.sleep(1.0)
        uid = await worklist.create()
        (new,) = await reports(socket, 1)
        assert facts(new) == (uid, 1, "SCHEDULED")
        assert (await worklist.call("POST", f"{path}/suspend")).status_code == 200
        await worklist.create()
        assert await nothing(socket)
    assert (await worklist.call("POST", f"/workitems/{uid}/subscribers/{aetitle}/suspend")).status_code == 400
    assert (await worklist.call("DELETE", path)).status_code == 200
    assert (await worklist.call("POST", f"{path}/suspend")).status_code == 404


@pytest.mark.requirement("PS3.18 11.10: a filtered worklist is subscribed to")
async def test_a_filtered_worklist_reports_what_matches(gateway: Gateway, aetitle: str) -> None:
    worklist, path = Worklist(gateway), f"/workitems/{FILTERED_WORKLIST}/subscribers/{aetitle}"
    assert (await worklist.call("POST", path)).status_code == 400  # without a filter
    assert (await worklist.call("POST", f"{path}?filter=AdmissionID=WARD-9")).status_code == 201
    async with channel(gateway, aetitle) as socket:
        await asyncio.sleep(1.0)
        await worklist.create()
        uid = await worklist.create(**{"00380010": attribute("LO", "WARD-9")})
        (only,) = await reports(socket, 1)
        assert facts(only) == (uid, 1, "SCHEDULED")
        assert await nothing(socket, 1.0)


async def test_a_change_made_in_the_record_itself_is_reported(gateway: Gateway, aetitle: str) -> None:
    worklist = Worklist(gateway)
    uid = await worklist.create()
    await worklist.call("POST", f"/workitems/{uid}/subscribers/{aetitle}")
    async with channel(gateway, aetitle) as socket:
        (task,) = await gateway.record.search("Task", [("identifier", f"urn:dicom:uid|urn:oid:{uid}")])
        await gateway.record.update(task | {"status": "completed"}, if_match=task["meta"]["versionId"])
        (told,) = await reports(socket, 1)
        assert facts(told) == (uid, 1, "COMPLETED")


@pytest.mark.requirement("PS3.18 8.10.4: who may not listen gets no connection")
async def test_a_handshake_without_a_token_is_refused(gateway: Gateway, aetitle: str) -> None:
    for headers in ({}, {"Authorization": "Bearer forged"}, bearer("user/Patient.rs")):
        with pytest.raises(InvalidStatus) as fault:
            async with connect(address(gateway, aetitle), additional_headers=headers, proxy=None):
                pass
        assert fault.value.response.status_code in (401, 403)
    token = bearer(TASKS)["Authorization"].split()[1]
    with pytest.raises(InvalidStatus) as fault:
        async with connect(f"{address(gateway, aetitle)}?access_token={token}", proxy=None):
            pass
    assert fault.value.response.status_code in (401, 403)


async def test_a_token_that_ends_closes_the_connection(gateway: Gateway, aetitle: str) -> None:
    async with channel(gateway, aetitle, expires_in=2) as socket:
        with pytest.raises(ConnectionClosed) as fault:
            await reports(socket, 1)
    assert fault.value.rcvd is not None
    assert fault.value.rcvd.code == 1008


async def test_who_may_not_read_the_task_hears_nothing(gateway: Gateway, aetitle: str) -> None:
    """A token of one patient's record reaches no Task of others: its global subscription stays silent."""
    bound: dict[str, Any] = {"scope": "patient/Task.cruds", "patient": "nobody-here", "sub": "bound"}
    mine = Worklist(gateway, **bound)
    assert (await mine.call("POST", f"/workitems/{WORKLIST}/subscribers/{aetitle}")).status_code == 201
    staff = Worklist(gateway)
    async with channel(gateway, aetitle, **bound) as socket:
        await asyncio.sleep(1.0)
        await staff.create()
        assert await nothing(socket)


async def test_an_ae_title_is_of_one_account(gateway: Gateway, aetitle: str) -> None:
    """Another account that listens under the same title hears nothing of what this one subscribed to."""
    worklist = Worklist(gateway)
    await worklist.call("POST", f"/workitems/{WORKLIST}/subscribers/{aetitle}")
    async with channel(gateway, aetitle, sub="another") as socket:
        await asyncio.sleep(1.0)
        await worklist.create()
        assert await nothing(socket)
    assert (
        await Worklist(gateway, sub="another").call("DELETE", f"/workitems/{WORKLIST}/subscribers/{aetitle}")
    ).status_code == 404
