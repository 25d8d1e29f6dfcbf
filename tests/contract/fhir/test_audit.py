"""Each call and each refusal leaves an AuditEvent that can be searched and never changed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from tests.contract.fhir.api import Api, entry, observation, refused, running


async def events(api: Api) -> list[dict[str, Any]]:
    """All events, oldest first, without those that this question itself leaves."""
    bundle = (await api.get("/fhir/AuditEvent?_count=1000&_sort=date")).json()
    found = [e["resource"] for e in bundle.get("entry", [])]
    return [e for e in found if e["subtype"][0]["code"] != "search-type" or len(e["entity"]) > 1]


def told(event: dict[str, Any]) -> tuple[str, str, str]:
    references = [e["what"]["reference"] for e in event["entity"] if "what" in e]
    return event["subtype"][0]["code"], event["outcome"], ",".join(references)


async def test_every_interaction_and_refusal(api: Api, patient: dict) -> None:
    created = await api.create(patient)
    reference = f"Patient/{created['id']}"
    await api.get(f"/fhir/{reference}")
    await api.get(f"/fhir/{reference}/_history/1")
    await api.put(f"/fhir/{reference}", created)
    await api.put(f"/fhir/{reference}", created, if_match='W/"9"')
    # Refusals cost less than the millisecond that an instant tells: two in the same one have no order.
    await api.get("/fhir/Patient/none")
    await asyncio.sleep(0.002)
    await api.http.get(f"/fhir/{reference}")
    await asyncio.sleep(0.002)
    await api.as_("system/Observation.r").get(f"/fhir/{reference}")
    await api.delete(f"/fhir/{reference}")
    found = [told(event) for event in await events(api)]
    assert found == [
        ("create", "0", reference),
        ("read", "0", reference),
        ("vread", "0", reference),
        ("update", "0", reference),
        ("update", "4", reference),
        ("read", "4", "Patient/none"),
        ("read", "8", ""),
        ("read", "8", reference),
        ("delete", "0", reference),
    ]


async def test_anonymous_refusal_names_nobody(api: Api) -> None:
    await api.http.get("/fhir/Patient/1")
    (event,) = await events(api)
    assert event["agent"] == [{"altId": "anonymous", "requestor": True}]
    assert event["outcome"] == "8"


async def searches(api: Api) -> int:
    """How many events tell of a search by other clients than the one that asks here."""
    bundle = (await api.get("/fhir/AuditEvent?_count=1000")).json()
    found = [e["resource"] for e in bundle["entry"]]
    return sum(e["subtype"][0]["code"] == "search-type" and e["agent"][0].get("altId") == "poller" for e in found)


async def test_a_service_that_asks_the_same_and_finds_nothing_leaves_one_event(api: Api, patient: dict) -> None:
    service = api.as_("system/*.rs", sub="poller", client_id="poller")
    for _ in range(5):
        await service.get("/fhir/Task?status=requested&code=http%3A%2F%2Fx%7Cy")
    assert await searches(api) == 1
    await service.get("/fhir/Task?status=accepted")
    assert await searches(api) == 2, "another question"
    for _ in range(2):
        await service.get("/fhir/Task?status=accepted&_summary=count")
        await service.get("/fhir/Task?status=accepted&%5Ftotal=accurate")
    assert await searches(api) == 6, "a count may tell of something"
    created = await api.create(patient)
    for _ in range(2):
        await service.get(f"/fhir/Patient?_id={created['id']}")
        await service.get("/fhir/Patient?nonsense=1", prefer="handling=strict")
    assert await searches(api) == 10, "what was shown, and what was refused"
    person = api.as_("user/*.rs", sub="poller", client_id="poller", fhirUser="Practitioner/1")
    for _ in range(2):
        await person.get("/fhir/Task?status=requested")
    assert await searches(api) == 12, "a person's search"


async def test_events_of_our_gateways_leave_no_events_of_their_own(api: Api) -> None:
    event = {
        "resourceType": "AuditEvent",
        "type": {"code": "rest"},
        "recorded": "2026-01-01T00:00:00Z",
        "agent": [{"altId": "told", "requestor": True}],
        "source": {"observer": {"display": "gateway SYNTHETIC"}},
    }
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": [entry("POST", "AuditEvent", event)] * 3}

    async def codes() -> list[str]:
        found = [e["resource"] for e in (await api.get("/fhir/AuditEvent?_count=1000")).json().get("entry", [])]
        return [e.get("subtype", [{"code": "told"}])[0]["code"] for e in found]

    async def added(client: Api) -> dict[str, int]:
        before = Counter(await codes())
        assert (await client.post("/fhir", bundle)).status_code == 200
        new = Counter(await codes()) - before
        return {code: new[code] for code in ("batch", "told")}

    assert await added(api.as_("system/AuditEvent.c foramen/gateway")) == {"batch": 1, "told": 3}
    assert await added(api.as_("system/AuditEvent.c")) == {"batch": 4, "told": 3}, "others are told of"


async def test_searches_leave_an_event_without_their_values(api: Api) -> None:
    await api.get("/fhir/Patient?name=secretname")
    bundle = (await api.get("/fhir/AuditEvent?subtype=search-type")).json()
    assert bundle["total"] == 1
    assert "secretname" not in str(bundle["entry"])


async def test_transaction_names_what_it_wrote(api: Api) -> None:
    answer = await api.transaction(
        entry("POST", "Patient", {"resourceType": "Patient"}, "urn:uuid:00000000-0000-4000-8000-000000000001"),
        entry("POST", "Observation", observation("urn:uuid:00000000-0000-4000-8000-000000000001")),
    )
    written = [e["response"]["location"].rpartition("/_history")[0] for e in answer.json()["entry"]]
    (event,) = await events(api)
    assert told(event)[:2] == ("transaction", "0")
    assert set(written) <= set(told(event)[2].split(","))
    assert await api.ids(f"AuditEvent?entity={written[1]}") == [event["id"]]
    assert await api.ids(f"AuditEvent?patient={written[0]}") == [event["id"]]


async def test_a_refused_transaction_leaves_an_event_and_nothing_else(api: Api) -> None:
    await api.transaction(entry("POST", "Patient", {"resourceType": "Patient", "gender": "x"}))
    found = [told(event) for event in await events(api)]
    assert found == [("transaction", "4", "")]


async def test_events_cannot_be_changed(api: Api) -> None:
    await api.get("/fhir/Patient/none")
    (event,) = await events(api)
    url = f"/fhir/AuditEvent/{event['id']}"
    refused(await api.put(url, event), 405, "not-supported")
    refused(await api.delete(url), 405, "not-supported")
    refused(await api.delete(f"/fhir/AuditEvent?_id={event['id']}"), 405, "not-supported")
    refused(await api.transaction(entry("PUT", f"AuditEvent/{event['id']}", event)), 405, "not-supported")
    refused(await api.transaction(entry("DELETE", f"AuditEvent/{event['id']}")), 405, "not-supported")
    assert (await api.get(url)).json() == event


async def test_other_rooms_may_post_their_events(api: Api) -> None:
    event = {
        "resourceType": "AuditEvent",
        "type": {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest"},
        "recorded": "2026-11-22T08:00:00Z",
        "agent": [{"requestor": True}],
        "source": {"observer": {"display": "foramen dicomweb"}},
    }
    assert (await api.as_("system/AuditEvent.c").post("/fhir/AuditEvent", event)).status_code == 201


async def test_stop_writes_what_waits(database_url: str) -> None:
    async with running(database_url) as (service, client):
        api = Api(client)
        from fhir_server.audit.record import audit_record

        for number in range(600):
            service._audit.remember(audit_record(interaction="read", status=200, trace_id=str(number), context=None))
    async with running(database_url) as (_, client):
        assert (await Api(client).get("/fhir/AuditEvent?_summary=count")).json()["total"] == 600
    assert api.headers


async def test_a_write_to_several_records_is_in_nobodys(api: Api) -> None:
    for name in ("cc", "dd"):
        await api.put_ok({"resourceType": "Patient", "id": name})
        await api.put_ok({**observation(f"Patient/{name}"), "id": f"o-{name}"})
        await api.put_ok({**observation(f"Patient/{name}"), "id": f"gone-{name}"})
    both = (
        entry("PUT", "Patient/cc", {"resourceType": "Patient", "id": "cc", "gender": "male"}),
        entry("PUT", "Observation/o-dd", {**observation("Patient/dd", code="F02"), "id": "o-dd"}),
    )
    assert (await api.transaction(*both)).status_code == 200
    # A deletion belongs to a record too, and more resources than an event names do not push the patients out of it.
    assert (await api.transaction(entry("DELETE", "Observation/gone-dd"), both[0])).status_code == 200
    many = [entry("POST", "Observation", observation("Patient/dd")) for _ in range(201)]
    assert (await api.transaction(both[0], *many)).status_code == 200
    appointment = {
        "resourceType": "Appointment",
        "id": "together",
        "status": "proposed",
        "participant": [{"actor": {"reference": f"Patient/{name}"}, "status": "needs-action"} for name in ("cc", "dd")],
    }
    await api.put_ok(appointment)
    cc = api.as_("patient/*.rs", patient="cc", fhirUser="Patient/cc")
    own = (await cc.get("/fhir/AuditEvent?_count=1000")).json()
    assert "Patient/cc" in str(own)
    assert not {"Patient/dd", "Observation/o-dd", "Observation/gone-dd", "Appointment/together"} & {
        reference for e in own["entry"] for reference in told(e["resource"])[2].split(",")
    }
    shared = await api.ids("AuditEvent?entity=Patient/cc&entity=Patient/dd")
    assert len(shared) == 4
    assert set(shared) <= set(await api.ids("AuditEvent?patient=Patient/dd"))
    assert set(await api.ids("AuditEvent?entity=Observation/gone-dd")) & set(shared)
    for event in shared:
        refused(await cc.get(f"/fhir/AuditEvent/{event}"), 404, "not-found")
    assert not set(await cc.ids("AuditEvent?entity=Patient/dd"))
    assert not set(await cc.ids("AuditEvent?entity=Observation/o-dd"))


async def test_a_patient_who_writes_into_anothers_record_does_not_find_the_event_in_their_own(api: Api) -> None:
    for name in ("cc", "dd"):
        await api.put_ok({"resourceType": "Patient", "id": name})
    parent = api.as_("user/*.cruds", fhirUser="Patient/cc")
    await parent.put_ok({**observation("Patient/dd"), "id": "o-dd"})
    (event,) = await api.ids("AuditEvent?entity=Observation/o-dd")
    assert (await api.get(f"/fhir/AuditEvent/{event}")).status_code == 200
    cc = api.as_("patient/*.rs", patient="cc", fhirUser="Patient/cc")
    refused(await cc.get(f"/fhir/AuditEvent/{event}"), 404, "not-found")


async def test_events_are_found_by_the_institution_of_who_acted(api: Api) -> None:
    """Reads, writes, transactions and refusals alike; a person without one and a service leave none."""
    await api.put_ok({"resourceType": "Patient", "id": "p"})
    for place in ("north", "south"):
        person = api.as_("user/Patient.cruds", sub=f"dr-{place}", fhirUser=f"Practitioner/{place}", institution=place)
        await person.get("/fhir/Patient/p")
        await person.put_ok({"resourceType": "Patient", "id": f"p-{place}"})
        await person.transaction(entry("POST", "Patient", {"resourceType": "Patient"}))
        refused(await person.get("/fhir/Observation/none"), 403, "forbidden")
    await api.as_("user/*.rs", sub="dr-no", fhirUser="Practitioner/no").get("/fhir/Patient/p")

    async def found(who: Api, query: str) -> list[tuple[str, str]]:
        entries = (await who.get(f"/fhir/AuditEvent?{query}&_sort=date")).json().get("entry", [])
        return [(e["resource"]["agent"][0]["altId"], told(e["resource"])[0]) for e in entries]

    kinds = ("read", "update", "transaction", "read")
    assert await found(api, "agent=Organization/north") == [("dr-north", kind) for kind in kinds]
    assert await found(api, "agent=Organization/south&subtype=update") == [("dr-south", "update")]
    assert await found(api, "agent=Organization/none") == []
    # A scope can be bounded to one institution, for its administrator: the query decides, before paging.
    auditor = api.as_("user/AuditEvent.rs?agent=Organization/north", sub="auditor", fhirUser="Practitioner/auditor")
    assert await found(auditor, "_count=1000") == await found(api, "agent=Organization/north")
    assert await found(auditor, "agent=Organization/south") == []
    total = (await auditor.get("/fhir/AuditEvent?_summary=count")).json()["total"]
    assert total == len(kinds)
    (other,) = await api.ids("AuditEvent?agent=Organization/south&subtype=update")
    refused(await auditor.get(f"/fhir/AuditEvent/{other}"), 404, "not-found")


async def test_asking_for_events_by_a_process_that_lags_behind_is_no_fault(database_url: str) -> None:
    """Search parameters keep changing, and the process never gets to hear of the newest: try again, says the answer."""
    async with running(database_url) as (service, client):
        api = Api(client)
        await api.get("/fhir/Patient/none")
        service._registry._checked = time.monotonic() + 3600.0  # It believes to have looked already.
        async with service._connections.lend() as connection:
            await connection.execute("UPDATE fhir.registry SET version = version + 1")
        refused(await api.get("/fhir/AuditEvent"), 503, "transient")
        service._registry._checked = 0.0
        assert (await api.get("/fhir/AuditEvent?subtype=read&_summary=count")).json()["total"] == 1
