"""Refusals of strangers: some of a network and minute are recorded one by one, the rest as one number."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from foramen.identity.bounded_audit import EACH_MINUTE
from foramen.identity.database import transaction, utc_now
from foramen.identity.housekeeping import delete_expired
from tests.contract.smart.people import People, people_server

MORE = EACH_MINUTE + 7


@pytest.fixture(scope="module")
async def server(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    async with people_server(module_database_url, tmp_path_factory.mktemp("home")) as found:
        yield found


@pytest.fixture
def people(server: People) -> People:
    server.execute("DELETE FROM identity.audit_outbox")
    server.execute("DELETE FROM identity.refusal_count")
    return server


def events(people: People) -> list[dict]:
    return [row[0] for row in people.execute("SELECT event FROM identity.audit_outbox ORDER BY id")]


def counted(people: People) -> int:
    return people.execute("SELECT coalesce(sum(refusals), 0) FROM identity.refusal_count")[0][0]


async def refuse(people: People, path: str, address: str, times: int = 1) -> None:
    forms = {
        "/auth/token": {"grant_type": "client_credentials", "client_id": "nobody", "scope": "system/*.rs"},
        "/auth/par": {"client_id": "nobody", "response_type": "code"},
        "/auth/revoke": {"client_id": "nobody", "token": "x"},
        "/auth/introspect": {"client_id": "portal", "token": "x"},
    }
    async with people.http(address) as http:
        for _ in range(times):
            if path == "/auth/authorize":
                answer = await http.get(path, params={"client_id": "nobody", "response_type": "code"})
            else:
                answer = await http.post(path, data=forms[path])
            assert 400 <= answer.status_code < 500


@pytest.mark.parametrize("path", ["/auth/token", "/auth/par", "/auth/revoke", "/auth/introspect", "/auth/authorize"])
async def test_a_stranger_cannot_fill_the_audit(people: People, path: str):
    await refuse(people, path, "192.0.2.1", MORE)
    minutes = people.execute("SELECT count(*) FROM identity.refusal_count")[0][0]
    assert len(events(people)) <= EACH_MINUTE * minutes
    assert counted(people) == MORE


async def test_the_rest_is_one_event_with_its_number(people: People):
    await refuse(people, "/auth/token", "192.0.2.2", 3)
    people.execute("UPDATE identity.refusal_count SET refusals = :n", n=EACH_MINUTE + 41)
    people.execute("DELETE FROM identity.audit_outbox")
    with transaction(people.database_url) as connection:
        delete_expired(connection)
    assert events(people) == [], "the minute may not be over"
    people.execute("UPDATE identity.refusal_count SET minute = minute - interval '2 minutes'")
    with transaction(people.database_url) as connection:
        delete_expired(connection)
        delete_expired(connection)
    (event,) = events(people)
    assert event["outcome"] == "4"
    assert event["outcomeDesc"].startswith("41 more refusals in the minute ")
    assert event["agent"][0]["network"]["address"] == "192.0.2.2"
    assert counted(people) == 0


async def test_a_network_is_counted_as_one_and_others_are_recorded(people: People):
    for number in range(MORE):
        await refuse(people, "/auth/token", f"2001:db8:1:2::{number:x}")
    (row,) = people.execute("SELECT DISTINCT network FROM identity.refusal_count")
    assert row[0] == "2001:db8:1:2::/64"
    before = len(events(people))
    await refuse(people, "/auth/token", "2001:db8:1:3::1")
    assert len(events(people)) == before + 1


async def test_used_and_expired_rows_are_gone_within_a_minute(people: People):
    """What was asked for lies in these rows: a patient, an app, a challenge."""
    people.add("surgeon")
    over = utc_now() - timedelta(seconds=1)
    values = {"t": over}
    people.execute(
        "INSERT INTO identity.authorization_request (request_digest, client_id, parameters, created_at, expires_at)"
        " VALUES ('r', 'portal', '{}', :t, :t)",
        **values,
    )
    people.execute("INSERT INTO identity.pushed_request VALUES ('p', 'portal', '{}', :t)", **values)
    people.execute("INSERT INTO identity.passkey_challenge VALUES ('c', 'b', NULL, 'get', :t)", **values)
    people.execute("INSERT INTO identity.partial_sign_in VALUES ('s', 'surgeon', :t, :t)", **values)
    people.execute(
        "INSERT INTO identity.launch (launch_digest, client_id, account, patient, need_patient_banner, expires_at)"
        " VALUES ('l', 'portal', 'surgeon', 'p1', true, :t)",
        **values,
    )
    with transaction(people.database_url) as connection:
        delete_expired(connection)
    for table in ("authorization_request", "pushed_request", "passkey_challenge", "partial_sign_in", "launch"):
        left = f"SELECT count(*) FROM identity.{table} WHERE expires_at < now()"  # noqa: S608  names of this file
        assert people.execute(left) == [(0,)], table


async def test_a_launch_is_gone_when_it_was_used(people: People):
    from foramen.identity.oauth.launches import Launch, create_launch, use_launch

    people.add("surgeon")
    with transaction(people.database_url) as connection:
        token = create_launch(connection, Launch("result-review", "surgeon", "p1"))
        assert use_launch(connection, token, "result-review", "surgeon") is not None
        assert use_launch(connection, token, "result-review", "surgeon") is None
    assert people.execute("SELECT count(*) FROM identity.launch WHERE patient = 'p1'") == [(0,)]
