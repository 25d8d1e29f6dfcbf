"""Sign-ins, refusals and issued tokens leave AuditEvents that reach the FHIR API even when it was down."""

from __future__ import annotations

import asyncio
import json

from tests.contract.smart.conftest import PASSWORD, App, Smart, sign_in


async def deliver(smart: Smart) -> None:
    smart.execute("UPDATE identity.audit_outbox SET next_attempt_at = now()")
    while await smart.service._audit.deliver_once():
        pass


def outbox(smart: Smart) -> int:
    return int(smart.execute("SELECT count(*) FROM identity.audit_outbox")[0][0])


async def test_events_arrive_once_the_fhir_api_is_back(smart: Smart, portal: App):
    await deliver(smart)
    smart.fhir.events.clear()
    smart.fhir.down = True
    browser = smart.browser()
    try:
        await browser.open(portal.url())
        await browser.submit(username="surgeon", password="my other password")
        await browser.submit(username="surgeon", password=PASSWORD)
        tokens = (await portal.exchange(browser.answer["code"])).json()
        await portal.exchange(browser.answer["code"])
        await deliver(smart)
        assert smart.fhir.events == []
        assert outbox(smart) == 4
    finally:
        smart.fhir.down = False
    await deliver(smart)
    assert outbox(smart) == 0
    seen = [(event["subtype"][0]["code"], event["outcome"]) for event in smart.fhir.events]
    assert seen == [("110122", "8"), ("110122", "0"), ("authorization_code", "0"), ("authorization_code", "4")]
    text = json.dumps(smart.fhir.events)
    for secret in (
        PASSWORD,
        "my other password",
        tokens["access_token"],
        tokens["refresh_token"],
        browser.answer["code"],
    ):
        assert secret not in text
    assert smart.fhir.events[2]["agent"][0]["who"]["reference"] == "Practitioner/dr1"


async def test_what_somebody_typed_as_a_name_is_not_kept(smart: Smart, portal: App):
    await deliver(smart)
    smart.fhir.events.clear()
    browser = smart.browser()
    await browser.open(portal.url())
    await browser.submit(username="hunter2-typed-in-the-wrong-field", password="x" * 12)
    await deliver(smart)
    assert smart.fhir.events[0]["agent"][0]["altId"] == "unknown"
    assert "hunter2" not in json.dumps(smart.fhir.events)


async def test_refusals_and_launches_are_recorded(smart: Smart, portal: App):
    await deliver(smart)
    smart.fhir.events.clear()
    browser = smart.browser()
    await sign_in(browser, portal)
    await browser.http.post("/auth/launch", json={"client_id": "care-plan", "patient": "p1"})
    await browser.open(portal.url(code_challenge=None))
    async with smart.http() as http:
        await http.post("/auth/token", data={"grant_type": "client_credentials", "scope": "system/*.rs"})
    await deliver(smart)
    seen = [(event["subtype"][0]["code"], event["outcome"]) for event in smart.fhir.events]
    assert ("launch", "0") in seen
    assert ("authorize", "4") in seen
    assert ("client_credentials", "4") in seen
    launch = next(event for event in smart.fhir.events if event["subtype"][0]["code"] == "launch")
    assert launch["entity"][0]["what"]["reference"] == "Patient/p1"


async def test_background_task_delivers_by_itself(smart: Smart, portal: App):
    await deliver(smart)
    smart.fhir.events.clear()
    task = asyncio.create_task(smart.service._audit.run(pause_s=0.05))
    try:
        browser = smart.browser()
        await sign_in(browser, portal)
        for _ in range(100):
            if smart.fhir.events:
                break
            await asyncio.sleep(0.05)
    finally:
        task.cancel()
        await asyncio.wait([task])  # Until it let its rows go: the next statement would wait for ever.
    assert smart.fhir.events


async def test_one_refused_event_does_not_hold_up_the_others(smart: Smart, portal: App):
    await deliver(smart)
    smart.fhir.events.clear()
    smart.fhir.refused = {"110122"}
    try:
        browser = smart.browser()
        await browser.open(portal.url())
        await browser.submit(username="surgeon", password=PASSWORD)
        await portal.exchange(browser.answer["code"])
        await _delivered_but(smart, 1)
        # The service delivers too, at least once: an event may have come twice.
        assert {event["subtype"][0]["code"] for event in smart.fhir.events} == {"authorization_code"}
    finally:
        smart.fhir.refused = set()
    await _delivered_but(smart, 0)
    assert "110122" in {event["subtype"][0]["code"] for event in smart.fhir.events}


async def _delivered_but(smart: Smart, left: int) -> None:
    for _ in range(50):
        await deliver(smart)
        if outbox(smart) == left:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{outbox(smart)} events wait, not {left}")
