"""Sign-ins, tokens and changes of accounts say whose institution they are of, so that they can be counted by it."""

from __future__ import annotations

from typing import Any

from foramen.identity.audit_outbox import record
from foramen.identity.database import transaction
from foramen.identity.people.accounts import save_account
from foramen.identity.rights.institutions import ensure_institution
from foramen.identity.security_event import SUCCESS, SecurityEvent
from tests.contract.smart.conftest import PASSWORD, App, Smart, sign_in


def site(event: dict[str, Any]) -> str | None:
    found: str | None = event["source"].get("site")
    return found


def last_events(smart: Smart, number: int) -> list[dict[str, Any]]:
    rows = smart.execute("SELECT event FROM identity.audit_outbox ORDER BY id DESC LIMIT :n", n=number)
    return [row[0] for row in reversed(rows)]


def add(smart: Smart, name: str, institution: str | None) -> None:
    if institution:
        ensure_institution(smart.database_url, institution, "SYN 医院", "SYN hospital")
    with transaction(smart.database_url) as connection:
        save_account(connection, name, PASSWORD, "physician", institution=institution, practitioner=f"dr-{name}")


async def test_a_sign_in_and_its_token_name_the_institution(smart: Smart, portal: App):
    add(smart, "of-south", "south")
    browser = smart.browser()
    await sign_in(browser, portal, "of-south")
    assert (await portal.exchange(browser.answer["code"])).status_code == 200
    signed_in, issued = last_events(smart, 2)
    assert signed_in["subtype"][0]["code"] == "110122"
    assert site(signed_in) == "south"
    assert site(issued) == "south"


async def test_an_event_on_somebody_names_that_of_who_acts_or_else_of_whom(smart: Smart):
    add(smart, "actor-south", "south")
    add(smart, "target-west", "west")
    add(smart, "nowhere", None)
    with transaction(smart.database_url) as connection:
        record(connection, SecurityEvent("account", SUCCESS, account="actor-south", concerns="target-west"))
        record(connection, SecurityEvent("account", SUCCESS, account="nowhere", concerns="target-west"))
        record(connection, SecurityEvent("account", SUCCESS, account="nowhere"))
    both, one, none = last_events(smart, 3)
    assert site(both) == "south"
    assert site(one) == "west"
    assert site(none) is None
