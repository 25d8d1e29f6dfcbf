"""Signing in through a CAS server: tickets are validated with it, bound to the browser, and its sign-out ends ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.contract.smart.federation_people import Traveller, trust
from tests.contract.smart.outside_cas import OutsideCas, outside_cas
from tests.contract.smart.people import People, people_server


@pytest.fixture(scope="module")
async def people(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    async with people_server(module_database_url, tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture(scope="module")
async def running(people: People) -> AsyncIterator[OutsideCas]:
    async with outside_cas() as server:
        trust(
            people,
            "campus",
            server.url,
            kind="cas",
            groups_claim="memberOf",
            acr_claim="authnContextClass",
            two_factor_acr=["mfa-simple"],
        )
        yield server


@pytest.fixture
def cas(people: People, running: OutsideCas) -> OutsideCas:
    running.answer, running.user, running.attributes = None, "li.wei", {"memberOf": ["canteen", "spine-surgeons"]}
    running.validated.clear()
    people.execute("DELETE FROM identity.session")
    people.execute("TRUNCATE identity.refusal_count")
    return running


async def test_a_ticket_signs_in_and_its_attributes_give_the_role(people: People, cas: OutsideCas):
    guest = Traveller.of(people)
    await guest.sign_in("campus", "?then=account")
    assert await guest.account() == "li.wei@campus"
    role = people.execute("SELECT role FROM identity.account WHERE name = 'li.wei@campus'")
    assert role[0][0] == "physician"
    asked = cas.validated[-1]
    assert asked["service"].startswith(f"{people.settings.origin}/auth/federation/campus/callback?state=")
    assert ("0", "federated") in people.events("110122")
    again = Traveller.of(people)
    await again.sign_in("campus")
    assert await again.account() == "li.wei@campus"
    cas.attributes = {"memberOf": ["canteen"]}
    assert (await Traveller.of(people).sign_in("campus")).status_code == 403
    assert await again.account() is None


async def test_two_factors_are_believed_where_that_is_said(people: People, cas: OutsideCas):
    cas.user, cas.attributes = "two", {"memberOf": ["it"], "authnContextClass": ["mfa-simple"]}
    await Traveller.of(people).sign_in("campus")
    assert ("0", "federated federated-second") in people.events("110122")


async def test_asked_anew_the_ticket_is_validated_with_renew(people: People, cas: OutsideCas):
    guest = Traveller.of(people)
    await guest.sign_in("campus")
    there = await guest.leave("campus")
    assert parse_qs(urlsplit(there).query)["renew"] == ["true"]
    await guest.browser.open(await guest.out_there(there))
    assert cas.validated[-1]["renew"] == "true"
    assert await guest.account() == "li.wei@campus"


async def test_tickets_are_good_once_in_one_browser_for_one_service(people: People, cas: OutsideCas):
    attacker, victim = Traveller.of(people), Traveller.of(people)
    back = await attacker.out_there(await attacker.leave("campus"))
    assert (await victim.browser.open(back)).status_code == 403
    assert cas.validated == []  # not even asked
    await attacker.browser.open(back)
    assert await attacker.account() == "li.wei@campus"
    assert (await attacker.browser.open(back)).status_code == 403
    mine = await victim.leave("campus")
    stolen = back.split("ticket=")[1]
    state = parse_qs(urlsplit(parse_qs(urlsplit(mine).query)["service"][0]).query)["state"][0]
    page = await victim.browser.open(f"/auth/federation/campus/callback?state={state}&ticket={stolen}")
    assert page.status_code == 403  # the server knows the ticket for another service address, or not any more
    assert victim.session is None


_IN = '<cas:serviceResponse xmlns:cas="http://www.yale.edu/tp/cas">{}</cas:serviceResponse>'
_SUCCESS = "<cas:authenticationSuccess>{}</cas:authenticationSuccess>"
_ENTITY = '<!DOCTYPE x [<!ENTITY u SYSTEM "file:///etc/hostname">]>'
_BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY u "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
ANSWERS = {
    "failure": _IN.format("<cas:authenticationFailure code='INVALID_TICKET'>no</cas:authenticationFailure>"),
    "not XML": "yes\nli.wei\n",
    "empty": "",
    "another namespace": '<serviceResponse xmlns="urn:x"><authenticationSuccess><user>li.wei</user>'
    "</authenticationSuccess></serviceResponse>",
    "no user": _IN.format(_SUCCESS.format("")),
    "two users": _IN.format(_SUCCESS.format("<cas:user>li.wei</cas:user><cas:user>other</cas:user>")),
    "success beside failure": _IN.format(
        _SUCCESS.format("<cas:user>li.wei</cas:user>") + "<cas:authenticationFailure code='x'/>"
    ),
    "success inside failure": _IN.format(
        f"<cas:authenticationFailure>{_SUCCESS.format('<cas:user>li.wei</cas:user>')}</cas:authenticationFailure>"
    ),
    "comment inside the user": _IN.format(_SUCCESS.format("<cas:user>li.wei<!-- -->.evil</cas:user>")),
    "element inside the user": _IN.format(_SUCCESS.format("<cas:user>li.wei<x/></cas:user>")),
    "a proxy ticket": _IN.format(
        _SUCCESS.format(
            "<cas:user>li.wei</cas:user><cas:proxies><cas:proxy>https://p</cas:proxy></cas:proxies>"
            "<cas:attributes><cas:memberOf>spine-surgeons</cas:memberOf></cas:attributes>"
        )
    ),
    "an external entity": _ENTITY + _IN.format(_SUCCESS.format("<cas:user>&u;</cas:user>")),
    "an entity": _BOMB + _IN.format(_SUCCESS.format("<cas:user>&u;</cas:user>")),
    "a DTD": "<!DOCTYPE x>" + _IN.format(_SUCCESS.format("<cas:user>li.wei</cas:user>")),
    "too large": _IN.format(_SUCCESS.format("<cas:user>li.wei</cas:user>") + " " * 300_000),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_answers_that_are_not_right(people: People, cas: OutsideCas, case: str):
    cas.answer = ANSWERS[case]
    guest = Traveller.of(people)
    page = await guest.sign_in("campus")
    assert page.status_code in (403, 503)
    assert guest.session is None
    assert people.execute("SELECT 1 FROM identity.session") == []


async def test_their_sign_out_ends_the_session_of_that_ticket_only(people: People, cas: OutsideCas):
    one, two = Traveller.of(people), Traveller.of(people)
    await one.sign_in("campus")
    await two.sign_in("campus")
    first = list(cas.services)[-2]
    async with people.http() as http:
        assert (await http.post(cas.services[first], data={"logoutRequest": "<x/>"})).status_code == 400
        forged = cas.logout_request("ST-guessed")
        assert (await http.post(cas.services[first], data={"logoutRequest": forged})).status_code == 200
        assert await one.account() == "li.wei@campus"
        entity = _ENTITY + cas.logout_request("x").replace(">x<", ">&u;<")
        assert (await http.post(cas.services[first], data={"logoutRequest": entity})).status_code == 400
        assert (await cas.tell(http, first)).status_code == 200
        assert (await cas.tell(http, first)).status_code == 400
    assert await one.account() is None
    assert await two.account() == "li.wei@campus"


async def test_our_sign_out_leads_through_theirs(people: People, cas: OutsideCas):
    guest = Traveller.of(people)
    await guest.sign_in("campus")
    await guest.browser.open("/auth/logout")
    page = await guest.browser.submit()
    there = page.headers["refresh"].removeprefix("0; url=")
    assert there.startswith(f"{cas.url}/logout?service=")
    page = await guest.browser.open(await guest.out_there(there))
    assert "您已退出登录" in page.text


async def test_no_ticket_is_kept(people: People, cas: OutsideCas):
    guest = Traveller.of(people)
    await guest.sign_in("campus")
    stored = str(people.execute("SELECT to_jsonb(s) FROM identity.federated_session s"))
    assert not any(ticket in stored for ticket in cas.services)
