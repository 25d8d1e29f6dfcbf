"""Every call needs a token with the right scope; another patient's study is as absent as one that does not exist.

DICOM PS3.18 §8.2 leaves access to the server; https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
from joserfc.jwk import ECKey
from pydicom import Dataset
from starlette.types import Receive, Scope, Send

from dicomweb.audit import AuditTrail
from dicomweb.instance_header import OWN_MANUFACTURER
from dicomweb.routes import ROUTES
from foramen.kernel.access_context import AccessContext
from foramen.kernel.audit_event import audit_event
from foramen.kernel.errors import UpstreamError
from tests.builders.dicom import MULTIPART, encoded, multipart, series
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import READ, Gateway

PATIENT = "patient/ImagingStudy.rs"
FRAMES = 'multipart/related; type="application/octet-stream"'


@pytest.fixture(scope="module")
async def two_patients(gateway: Gateway) -> tuple[Dataset, Dataset]:
    mine, other = series(1, seed=41, patient_id="SYN-41")[0], series(1, seed=42, patient_id="SYN-42")[0]
    for dataset, identity in ((mine, "mine"), (other, "other")):
        await gateway.add_patient(dataset.PatientID, identity)
        await gateway.store(dataset)
        await gateway.register(dataset.StudyInstanceUID)
        await gateway.add_workitem(dataset, identity)
    return mine, other


def filled(path: str, dataset: Dataset) -> str:
    names = {"study": dataset.StudyInstanceUID, "series": dataset.SeriesInstanceUID, "instance": dataset.SOPInstanceUID}
    if path == "/wado":
        path = "/wado?requestType=WADO&studyUID={study}&seriesUID={series}&objectUID={instance}"
    asked = path.replace("{path:path}", "7FE00010")
    return asked.format(**names, frames="1", workitem=dataset.SOPInstanceUID, aetitle="PROBE", code="113037^DCM")


def needed(route) -> str:
    if route.path.startswith("/workitems"):
        return "user/Task.cruds"
    letter = {"search": "s", "store": "c", "delete": "d"}.get(route.handler, "r")
    letter = "u" if route.handler in ("reject", "restore", "list_rejections") else letter
    if route.handler == "drift":
        return "user/Task.u foramen/admin"
    return "user/Task.u" if route.handler == "register" else f"user/ImagingStudy.{letter}"


async def ask(gateway: Gateway, route, dataset: Dataset, headers: dict[str, str]):
    body = multipart(encoded(dataset)) if route.handler == "store" else None
    if body:
        headers = headers | {"Content-Type": MULTIPART}
    return await gateway.http.request(route.method, filled(route.path, dataset), headers=headers, content=body)


async def about(gateway: Gateway, route, mine: Dataset) -> Dataset:
    """What the route is tried on: what takes images away, on its own; what undoes that, on what was rejected."""
    if route.handler not in ("reject", "restore", "delete"):
        return mine
    dataset = series(1, seed=4100 + ROUTES.index(route), patient_id="SYN-44")[0]
    dataset.StudyDate = "19900102"  # Younger images may not be deleted yet.
    assert (await gateway.store(dataset)).status_code == 200
    if route.handler != "reject":
        path = route.path.removesuffix("/restore") + "/reject/{code}"
        rejected = await gateway.http.post(filled(path, dataset), headers=bearer("user/ImagingStudy.u"))
        assert rejected.status_code == 200
    return dataset


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_each_route_anonymous_expired_forged_wrong_scope_then_success(gateway: Gateway, two_patients, route):
    mine = await about(gateway, route, two_patients[0])
    anonymous = await ask(gateway, route, mine, {})
    assert (anonymous.status_code, anonymous.json()["issue"][0]["code"]) == (401, "login")
    assert anonymous.headers["www-authenticate"].startswith("Bearer")
    expired = await ask(gateway, route, mine, bearer(needed(route), expires_in=-1))
    assert (expired.status_code, expired.json()["issue"][0]["code"]) == (401, "expired")
    forged = await ask(gateway, route, mine, bearer(needed(route), key=ECKey.generate_key("P-256", private=True)))
    assert forged.status_code == 401
    wrong = await ask(gateway, route, mine, bearer("user/Observation.cruds launch"))
    assert (wrong.status_code, wrong.json()["issue"][0]["code"]) == (403, "forbidden")
    good = await ask(gateway, route, mine, bearer(needed(route)))
    if route.path.startswith("/workitems"):  # What their bodies do is in `test_ups.py`.
        assert good.status_code not in (401, 403)
    else:
        assert good.status_code in (200, 202, 204)


@pytest.mark.parametrize(
    "route",
    [route for route in ROUTES if route.method == "GET" and "{study}" in route.path],
    ids=lambda route: route.path,
)
async def test_another_patients_study_is_as_absent_as_an_unknown_one(gateway: Gateway, two_patients, route):
    _, other = two_patients
    token = bearer(PATIENT, patient="mine")
    foreign = await ask(gateway, route, other, token)
    unknown = Dataset()
    unknown.StudyInstanceUID = unknown.SeriesInstanceUID = unknown.SOPInstanceUID = "1.2.3"
    absent = await ask(gateway, route, unknown, token)
    assert (foreign.status_code, foreign.content) == (absent.status_code, absent.content)
    assert foreign.status_code == 404 or foreign.json() == []


async def test_a_patient_token_finds_and_reads_its_own_study_alone(gateway: Gateway, two_patients):
    mine, _ = two_patients
    token = bearer(PATIENT, patient="mine")
    for level in ("studies", "series", "instances"):
        found = (await gateway.http.get(f"/{level}", headers=token)).json()
        assert [item["0020000D"]["Value"][0] for item in found] == [mine.StudyInstanceUID]
    assert (await gateway.http.get(f"/studies/{mine.StudyInstanceUID}", headers=token)).status_code == 200


async def test_access_is_applied_before_paging(gateway: Gateway, two_patients):
    mine, other = two_patients
    for patient, dataset in (("mine", mine), ("other", other)):
        token = bearer(PATIENT, patient=patient)
        page = await gateway.http.get("/studies?limit=1&offset=0", headers=token)
        assert [item["0020000D"]["Value"][0] for item in page.json()] == [dataset.StudyInstanceUID]
        assert "warning" not in page.headers
        assert (await gateway.http.get("/studies?limit=1&offset=1", headers=token)).json() == []


async def test_a_patient_scope_cannot_store_or_register(gateway: Gateway, two_patients):
    mine, _ = two_patients
    store, register = (next(route for route in ROUTES if route.handler == name) for name in ("store", "register"))
    token = bearer("patient/ImagingStudy.cruds patient/Task.cruds", patient="mine")
    assert (await ask(gateway, store, mine, token)).status_code == 403
    assert (await ask(gateway, register, mine, token)).status_code == 403


async def test_a_patient_scope_without_a_patient_reaches_nothing(gateway: Gateway, two_patients):
    assert (await gateway.http.get("/studies", headers=bearer(PATIENT))).status_code == 403


@pytest.mark.parametrize("context", ["patient", "user", "system"])
@pytest.mark.parametrize("route", [route for route in ROUTES if route.handler != "register"], ids=lambda r: r.path)
async def test_a_granular_scope_opens_no_images(gateway: Gateway, two_patients, route, context: str):
    mine, _ = two_patients
    token = bearer(f"{context}/ImagingStudy.cruds?modality=MR", patient="mine")
    refused = await ask(gateway, route, mine, token)
    assert (refused.status_code, refused.json()["issue"][0]["code"]) == (403, "forbidden")


async def test_a_scope_without_a_query_counts_beside_a_granular_one(gateway: Gateway, two_patients):
    token = bearer("patient/ImagingStudy.rs user/ImagingStudy.rs?modality=MR", patient="mine")
    found = (await gateway.http.get("/studies", headers=token)).json()
    assert [item["0020000D"]["Value"][0] for item in found] == [two_patients[0].StudyInstanceUID]


async def test_what_this_installation_made_is_not_shown_to_a_patient(gateway: Gateway):
    image = series(1, seed=43, patient_id="SYN-43")[0]
    made = series(1, seed=44, patient_id="SYN-43", series_description="Segmentation SYNTHETIC")[0]
    made.StudyInstanceUID, made.Modality, made.Manufacturer = image.StudyInstanceUID, "SEG", OWN_MANUFACTURER
    await gateway.add_patient("SYN-43", "third")
    for dataset in (image, made):
        await gateway.store(dataset)
    await gateway.register(image.StudyInstanceUID)
    study, patient, surgeon = (
        f"/studies/{image.StudyInstanceUID}",
        bearer(PATIENT, patient="third", fhirUser="Patient/third"),
        bearer(PATIENT, patient="third", fhirUser="Practitioner/surgeon"),
    )
    for token, shown in ((patient, 1), (surgeon, 2)):
        for path in ("/series", f"{study}/series", "/instances", f"{study}/instances", f"{study}/metadata"):
            assert len((await gateway.http.get(path, headers=token)).json()) == shown, path
        (found,) = (await gateway.http.get("/studies", headers=token)).json()
        assert found["00201206"]["Value"] == found["00201208"]["Value"] == [shown]
        assert found["00080061"]["Value"] == ["MR", "SEG"][:shown]
        by_modality = await gateway.http.get("/studies?ModalitiesInStudy=SEG", headers=token)
        assert len(by_modality.json()) == shown - 1
        body = await gateway.http.get(study, headers=token)
        assert body.content.count(b"Content-Type: application/dicom") == shown
        of_series = f"{study}/series/{made.SeriesInstanceUID}"
        for path in (of_series, f"{of_series}/instances/{made.SOPInstanceUID}", f"{of_series}/metadata"):
            assert (await gateway.http.get(path, headers=token)).status_code == (404 if shown == 1 else 200)


def frame_of(dataset: Dataset) -> str:
    uids = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
    return "/studies/{}/series/{}/instances/{}/frames/1".format(*uids)


async def events_of(gateway: Gateway, subject: str) -> list[dict[str, Any]]:
    page = await gateway.record.page("AuditEvent", [("_sort", "-date"), ("_count", "1000")])
    events = [entry["resource"] for entry in page["entry"]]
    return [event for event in events if event["agent"][0].get("altId") == subject]


@pytest.mark.requirement("PS3.15 A.5.3.6: instances of a study accessed, with their number")
async def test_frames_of_a_second_share_one_durable_audit_event(gateway: Gateway, two_patients):
    mine, other = two_patients
    token = bearer("patient/ImagingStudy.rs", patient="mine", sub="pages")
    assert (await gateway.http.get(frame_of(mine), headers=token)).status_code == 200
    async with gateway.service._database.connection() as connection:
        query = "SELECT event FROM dicomweb.audit_outbox WHERE held_as IS NOT NULL AND event LIKE '%\"pages\"%'"
        (held,) = [orjson.loads(row[0]) for row in await connection.fetch(query)]
    study = f"urn:oid:{mine.StudyInstanceUID}"
    assert [one["what"] for one in held["entity"][1:]] == [
        {"identifier": {"value": study}}, {"reference": "Patient/mine"},
    ]  # fmt: skip
    for number in range(30):
        path = frame_of(mine) if number % 10 else frame_of(other)
        assert (await gateway.http.get(path, headers=token)).status_code == (200 if number % 10 else 404)

    async def counted() -> list[dict[str, Any]]:
        events = await events_of(gateway, "pages")
        told = sum(int(event["entity"][1]["detail"][0]["valueString"]) for event in events if "period" in event)
        return events if told == 28 and len([event for event in events if event["outcome"] == "4"]) == 3 else []

    events = [event for event in await gateway.until(counted) if event["outcome"] == "0"]
    assert len(events) < 20  # One a second; more than one only because a busy machine takes more than a second.
    for event in events:
        assert event["entity"][1]["what"]["identifier"]["value"] == study
        assert [(one["type"]) for one in event["entity"][1]["detail"]] == ["requests", "instances"]
        assert event["entity"][1]["detail"][1]["valueString"] == "1"
        assert event["period"]["start"] == event["recorded"] <= event["period"]["end"]


@pytest.mark.parametrize("accept", [FRAMES, "application/octet-stream", "*/*"])
async def test_what_is_decided_is_answered_at_once_and_as_the_endpoint_answers(
    gateway: Gateway, two_patients, monkeypatch, accept: str
):
    token = bearer(PATIENT, patient="mine", sub=f"viewer {accept[:3]}") | {"Accept": accept}
    reached: list[str] = []
    endpoint = gateway.service._ready_frames._app

    async def counting(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["path"])
        await endpoint(scope, receive, send)

    monkeypatch.setattr(gateway.service._ready_frames, "_app", counting)

    async def frame(**more: str) -> tuple[bool, httpx.Response]:
        before = len(reached)
        answer = await gateway.http.get(frame_of(two_patients[0]), headers=token | more)
        return len(reached) == before, answer

    at_once, by_endpoint = await frame()
    assert not at_once
    while not at_once:  # From the fourth within a second on.
        at_once, found = await frame()
    assert (found.status_code, by_endpoint.status_code) == (200, 200)
    assert without_boundary(found) == without_boundary(by_endpoint)
    for more in ({"If-None-Match": found.headers["etag"]}, {"Range": "bytes=0-9"}, {"traceparent": f"00-{'c' * 32}-"}):
        at_once, _ = await frame(**more)
        assert not at_once
    monkeypatch.setattr(gateway.service._audit_windows, "join", lambda *_: False)
    at_once, _ = await frame()
    assert not at_once  # Whose event is not durable waits for it there.


async def test_frames_taken_one_after_the_other_are_read_ahead_and_each_is_its_own(gateway: Gateway):
    images = series(12, seed=4801, patient_id="SYN-48")
    images[3].PixelData, images[3].Rows = images[3].PixelData[: images[3].Columns * 2 * 5], 5  # One is smaller.
    assert (await gateway.store(*images)).status_code == 200
    token = bearer(READ, sub="in turn") | {"Accept": FRAMES}
    ahead = 0
    for _ in range(4):
        for image in images:
            answer = await gateway.http.get(frame_of(image), headers=token)
            boundary = answer.headers["content-type"].partition("boundary=")[2].encode()
            (_, part, _) = answer.content.split(b"--" + boundary)
            head, _, pixels = part.partition(b"\r\n\r\n")
            assert image.SOPInstanceUID.encode() in head
            assert pixels.removesuffix(b"\r\n") == image.PixelData
            ahead += gateway.service._ready_frames._frames._ahead is not None
    assert ahead >= 12


def without_boundary(answer: httpx.Response) -> tuple[dict[str, str], bytes]:
    boundary = answer.headers["content-type"].partition("boundary=")[2] or "none"
    headers = {name: value.replace(boundary, "") for name, value in answer.headers.items() if name != "date"}
    return headers, answer.content.replace(boundary.encode(), b"")


async def test_without_its_audit_event_no_frame_is_sent(gateway: Gateway, two_patients, monkeypatch):
    token = bearer(PATIENT, patient="mine", sub="unlogged")

    async def fails(self: AuditTrail, event: dict[str, Any], *, held_as: str | None = None) -> None:
        raise UpstreamError("The audit trail cannot be written")

    with monkeypatch.context() as patched:
        patched.setattr(AuditTrail, "record", fails)
        answers = await asyncio.gather(*(gateway.http.get(frame_of(two_patients[0]), headers=token) for _ in range(4)))
        assert {answer.status_code for answer in answers} == {503}
    assert (await gateway.http.get(frame_of(two_patients[0]), headers=token)).status_code == 200


async def test_an_event_that_a_killed_process_left_uncounted_is_sent(gateway: Gateway):
    event = audit_event(
        interaction="retrieve-frames", source="dicomweb", status=200, recorded=datetime.now(UTC), trace_id="c" * 32,
        context=AccessContext("left", "client", ()), entity="urn:oid:1.2.3",
    )  # fmt: skip
    await gateway.service._audit.record(event, held_as="left behind")
    assert not await events_of(gateway, "left")
    async with gateway.service._database.connection() as connection:
        await connection.execute("UPDATE dicomweb.audit_outbox SET held_until = now() WHERE held_as = 'left behind'")
    (sent,) = await gateway.until(lambda: events_of(gateway, "left"))
    assert "period" not in sent


async def test_every_call_and_refusal_leaves_an_audit_event(gateway: Gateway, two_patients):
    mine, _ = two_patients
    trace = "ab" * 16
    headers = {"traceparent": f"00-{trace}-{'1' * 16}-01"}
    await gateway.http.get(f"/studies/{mine.StudyInstanceUID}/metadata", headers=bearer(READ) | headers)
    await gateway.http.get("/studies", headers=headers)

    async def two() -> list:
        events = await gateway.audit_events(trace)
        return events if len(events) == 2 else []

    events = await gateway.until(two)
    by_outcome = {item["outcome"]: item for item in events}
    assert by_outcome["0"]["entity"][1]["what"]["identifier"]["value"] == f"urn:oid:{mine.StudyInstanceUID}"
    assert by_outcome["0"]["entity"][2]["what"]["reference"] == "Patient/mine"
    assert by_outcome["8"]["agent"][0]["altId"] == "anonymous"
