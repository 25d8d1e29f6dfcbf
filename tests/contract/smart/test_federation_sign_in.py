"""Signing in through an outside OpenID provider: accounts, groups to roles, factors, links, sign-out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import pytest

from foramen.identity.database import transaction
from foramen.identity.federation.outside_sessions import end_of_provider
from foramen.identity.federation.providers import set_enabled
from foramen.identity.people.accounts import save_account
from tests.builders.browser import forms_of
from tests.contract.smart.federation_people import ROLES, Traveller, trust
from tests.contract.smart.outside_provider import OutsideProvider, outside_provider
from tests.contract.smart.people import PASSWORD, People, options_of, otp_of, people_server

SIGN_IN = "110122"


@pytest.fixture(scope="module")
async def people(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    async with people_server(module_database_url, tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture(scope="module")
async def running(people: People) -> AsyncIterator[OutsideProvider]:
    async with outside_provider() as provider:
        trust(people, "hospital", provider.issuer)
        yield provider


@pytest.fixture
def outside(people: People, running: OutsideProvider) -> OutsideProvider:
    running.behave()
    trust(people, "hospital", running.issuer)
    return running


def person(sub: str, *groups: str, **claims: object) -> dict[str, object]:
    return {"sub": sub, "groups": list(groups), "preferred_username": sub, **claims}


async def test_first_sign_in_makes_the_account_and_the_second_finds_it(people: People, outside: OutsideProvider):
    outside.person = person("li.wei", "spine-surgeons", "canteen")
    first = Traveller.of(people)
    await first.sign_in()
    assert first.browser.redirected_to == f"{people.settings.origin}/"
    assert await first.account() == "li.wei@hospital"
    second = Traveller.of(people)
    await second.sign_in(query="?then=account")
    assert await second.account() == "li.wei@hospital"
    rows = people.execute("SELECT role, institution FROM identity.account WHERE name = 'li.wei@hospital'")
    assert [tuple(row) for row in rows] == [("physician", None)]
    assert ("0", "hospital: physician") in people.events("account-created")
    assert ("0", "federated") in people.events(SIGN_IN)
    asked = outside.asked[-1]
    assert asked["code_challenge_method"] == "S256"
    assert asked["max_age"] == str(people.settings.session_absolute_s)
    assert "prompt" not in asked


async def test_the_same_subject_under_another_name_is_the_same_account(people: People, outside: OutsideProvider):
    outside.person = person("u-77", "it", preferred_username="wang")
    await Traveller.of(people).sign_in()
    outside.person = person("u-77", "it", preferred_username="zhao")
    again = Traveller.of(people)
    await again.sign_in()
    assert await again.account() == "wang@hospital"


async def test_a_name_that_is_taken_opens_nothing(people: People, outside: OutsideProvider):
    people.add("chief")
    outside.person = person("u-1", "it", preferred_username="chief")
    first = Traveller.of(people)
    await first.sign_in()
    assert await first.account() == "chief@hospital"  # never the local account of that name
    outside.person = person("u-2", "it", preferred_username="chief")
    other = Traveller.of(people)
    await other.sign_in()
    name = await other.account()
    assert name is not None
    assert name not in ("chief", "chief@hospital")
    outside.person = person("u-3", "it", preferred_username="../../张伟")
    strange = Traveller.of(people)
    await strange.sign_in()
    assert (await strange.account() or "").endswith("@hospital")


async def test_without_a_mapped_group_nobody_comes_in_and_nothing_is_left(people: People, outside: OutsideProvider):
    outside.person = person("nobody", "canteen", "administrators", "system-administrator")
    guest = Traveller.of(people)
    page = await guest.sign_in()
    assert page.status_code == 403
    assert "没有对应的角色" in page.text
    assert guest.session is None
    assert people.execute("SELECT 1 FROM identity.federated_account WHERE subject = 'nobody'") == []
    assert ("8", "hospital: no role") in people.events(SIGN_IN)


async def test_accounts_are_made_only_where_that_is_said(people: People, outside: OutsideProvider):
    trust(people, "hospital", outside.issuer, create_accounts=False)
    outside.person = person("stranger", "spine-surgeons")
    page = await Traveller.of(people).sign_in()
    assert page.status_code == 403
    assert "尚未关联" in page.text
    assert people.execute("SELECT 1 FROM identity.account WHERE name = 'stranger@hospital'") == []


async def test_a_lost_group_takes_the_role_and_what_it_gave(people: People, outside: OutsideProvider):
    outside.person = person("mover", "spine-surgeons")
    at_work = Traveller.of(people)
    await at_work.sign_in()
    name = "mover@hospital"
    wide, narrow = (family(people, name, scope) for scope in ("user/Patient.rs", "openid"))
    outside.person = person("mover", "it")
    await Traveller.of(people).sign_in()
    assert people.execute("SELECT role FROM identity.account WHERE name = :n", n=name)[0][0] == "engineer"
    assert revoked(people, wide)
    assert not revoked(people, narrow)
    assert ("0", "role physician → engineer") in people.events("account-followed")
    assert await at_work.account() == name  # the session goes on, with the rights of today
    outside.person = person("mover", "canteen")
    page = await Traveller.of(people).sign_in()
    assert page.status_code == 403
    assert revoked(people, narrow)
    assert await at_work.account() is None


def family(people: People, account: str, scope: str) -> str:
    return str(
        people.execute(
            "INSERT INTO identity.token_family (family, client_id, account, scope, launch_context, expires_at)"
            " VALUES (gen_random_uuid(), 'portal', :a, :s, '{}', now() + interval '1 day') RETURNING family",
            a=account,
            s=scope,
        )[0][0]
    )


def revoked(people: People, family: str) -> bool:
    return bool(
        people.execute("SELECT revoked_at IS NOT NULL FROM identity.token_family WHERE family = :f", f=family)[0][0]
    )


async def test_a_password_link_ends_when_the_role_follows_the_groups(people: People, outside: OutsideProvider):
    outside.person = person("linked-up", "spine-surgeons")
    await Traveller.of(people).sign_in()
    people.execute(
        "INSERT INTO identity.password_link (account, token_digest, made_by, created_at, expires_at) "
        "VALUES ('linked-up@hospital', 'x', 'somebody', now(), now() + interval '1 day')"
    )
    outside.person = person("linked-up", "it")
    await Traveller.of(people).sign_in()
    assert people.execute("SELECT role FROM identity.account WHERE name = 'linked-up@hospital'") == [("engineer",)]
    assert people.execute("SELECT count(*) FROM identity.password_link") == [(0,)]


async def test_institution_and_practitioner_follow_the_claims(people: People, outside: OutsideProvider):
    people.execute("INSERT INTO identity.institution VALUES ('i1', '甲', 'A', now()), ('i2', '乙', 'B', now())")
    trust(
        people,
        "hospital",
        outside.issuer,
        institution_claim="org.code",
        institutions=[{"value": "ORG-1", "institution": "i1"}, {"value": "ORG-2", "institution": "i2"}],
        practitioner_claim="fhirUser",
    )
    outside.person = person("dr", "spine-surgeons", org={"code": "ORG-1"}, fhirUser="https://ehr/fhir/Practitioner/p7")
    at_work = Traveller.of(people)
    await at_work.sign_in()
    token = family(people, "dr@hospital", "openid")
    query = "SELECT institution, practitioner FROM identity.account WHERE name = 'dr@hospital'"
    assert tuple(people.execute(query)[0]) == ("i1", "p7")
    outside.person = person("dr", "spine-surgeons", org={"code": "ORG-2"}, fhirUser="Practitioner/p8")
    await Traveller.of(people).sign_in()
    assert tuple(people.execute(query)[0]) == ("i2", "p8")
    assert revoked(people, token)  # it named the other institution
    assert await at_work.account() is None


async def test_an_administrator_is_one_only_by_name_and_needs_two_factors(people: People, outside: OutsideProvider):
    outside.person = person("root", "system-administrator", "it")
    guest = Traveller.of(people)
    await guest.sign_in()
    assert people.execute("SELECT role FROM identity.account WHERE name = 'root@hospital'")[0][0] == "engineer"
    trust(
        people,
        "hospital",
        outside.issuer,
        roles=[{"group": "foramen-admins", "role": "system-administrator"}, *ROLES],
        two_factor_amr=["mfa"],
    )
    outside.person = person("root", "foramen-admins", amr=["pwd"])
    one = Traveller.of(people)
    page = await one.sign_in(query="?then=account")
    assert str(page.url).endswith("/auth/enrol?then=account")  # the provider vouched for one factor: ours is asked for
    assert await one.account() is None
    otp = otp_of(page.text)
    await one.browser.submit(code=otp.now())
    assert await one.account() == "root@hospital"
    assert ("0", "federated totp") in people.events(SIGN_IN)
    outside.person = person("root", "foramen-admins", amr=["pwd", "mfa"])
    two = Traveller.of(people)
    await two.sign_in()
    assert await two.account() == "root@hospital"
    assert ("0", "federated federated-second") in people.events(SIGN_IN)


async def test_amr_counts_only_where_the_provider_is_trusted_for_two(people: People, outside: OutsideProvider):
    trust(people, "hospital", outside.issuer, roles=[{"group": "foramen-admins", "role": "system-administrator"}])
    outside.person = person("boss", "foramen-admins", amr=["mfa"], acr="https://refeds.org/profile/mfa")
    one = Traveller.of(people)
    page = await one.sign_in()
    assert "/auth/enrol" in str(page.url)
    assert one.session is None


async def test_a_disabled_account_stays_disabled(people: People, outside: OutsideProvider):
    outside.person = person("gone", "it")
    await Traveller.of(people).sign_in()
    people.execute("UPDATE identity.account SET disabled = true WHERE name = 'gone@hospital'")
    page = await Traveller.of(people).sign_in()
    assert page.status_code == 403
    assert "已被停用" in page.text


async def test_groups_may_come_from_userinfo_but_the_signed_word_stands(people: People, outside: OutsideProvider):
    outside.person = {"sub": "far", "preferred_username": "far"}
    outside.userinfo = {"groups": ["it"], "preferred_username": "somebody-else"}
    guest = Traveller.of(people)
    await guest.sign_in()
    assert await guest.account() == "far@hospital"
    outside.userinfo = {"groups": ["spine-surgeons"], "sub": "another"}
    page = await Traveller.of(people).sign_in()
    assert page.status_code == 403


async def test_who_comes_by_a_provider_cannot_sign_in_around_it(people: People, outside: OutsideProvider):
    outside.person = person("keeper", "it")
    guest = Traveller.of(people)
    await guest.sign_in()
    device = people.authenticator()
    browser = guest.browser
    page = await browser.open("/auth/enrol/passkey?then=account")
    await browser.submit(credential=device.create(options_of(page.text)), name="SYN key")
    assert people.execute("SELECT count(*) FROM identity.passkey WHERE account = 'keeper@hospital'")[0][0] == 1
    alone = Traveller.of(people)
    page = await alone.browser.open("/auth/passkey?then=account")
    page = await alone.browser.submit(credential=device.get(options_of(page.text)))
    assert page.status_code == 403
    assert await alone.account() is None
    both = Traveller.of(people)  # as the second factor after the provider it is good
    page = await both.sign_in(query="?then=account")
    assert "/auth/second-factor" in str(page.url)
    page = await both.browser.open("/auth/passkey?then=account")
    await both.browser.submit(credential=device.get(options_of(page.text)))
    assert await both.account() == "keeper@hospital"
    assert ("0", "federated passkey") in people.events(SIGN_IN)


async def test_asked_to_prove_oneself_anew_a_session_there_is_not_enough(people: People, outside: OutsideProvider):
    outside.person = person("fresh", "it")
    guest = Traveller.of(people)
    await guest.sign_in()
    there = await guest.leave(query="?then=account")
    assert parse_qs(urlsplit(there).query)["prompt"] == ["login"]
    outside.claims = {"auth_time": int(time.time()) - 3600}
    page = await guest.browser.open(await guest.out_there(there))
    assert page.status_code == 403
    assert "重新验证身份" in page.text
    outside.claims = {"auth_time": None}
    page = await guest.sign_in()
    assert page.status_code == 403


async def test_the_session_says_when_its_person_proved_who_they_are(people: People, outside: OutsideProvider):
    outside.person = person("slow", "it")
    outside.claims = {"auth_time": int(time.time()) - 3600}
    guest = Traveller.of(people)
    await guest.sign_in()
    age = people.execute(
        "SELECT extract(epoch FROM now() - authenticated_at) FROM identity.session WHERE account = 'slow@hospital'"
    )
    assert 3590 < age[0][0] < 3700
    page = await guest.browser.open("/auth/enrol")
    assert str(page.url).endswith("/auth/login?then=account")  # nothing that asks for a recent sign-in opens


# --- linking


async def test_an_account_is_linked_by_whoever_is_signed_in_to_it(people: People, outside: OutsideProvider):
    trust(people, "hospital", outside.issuer, create_accounts=False)
    people.add("linker")
    browser = await people.signed_in("linker")
    at_home = Traveller(people, browser)
    page = await browser.open("/auth/federation/hospital/link")
    assert f"form-action 'self' {outside.issuer}" in page.headers["content-security-policy"]
    await browser.submit()
    outside.person = person("linker-there")
    page = await browser.open(await at_home.out_there(browser.redirected_to))
    assert "已关联" in page.text
    assert ("0", "hospital") in people.events("identity-linked")
    elsewhere = Traveller.of(people)
    await elsewhere.sign_in()
    assert await elsewhere.account() == "linker"
    role = people.execute("SELECT role FROM identity.account WHERE name = 'linker'")
    assert role[0][0] == "physician"  # no group there changes what was given here
    page = await browser.open("/auth/federation")
    page = await browser.submit(next(i for i, f in enumerate(forms_of(page.text)) if f.action.endswith("/unlink")))
    assert "已取消关联" in page.text
    assert (await Traveller.of(people).sign_in()).status_code == 403


async def test_a_link_needs_its_own_session_a_recent_one_and_the_form_token(people: People, outside: OutsideProvider):
    people.add("careful")
    browser = await people.signed_in("careful")
    answer = await browser.http.post("/auth/federation/hospital/link", data={"csrf": "0" * 64})
    assert answer.status_code == 403
    answer = await browser.http.post("/auth/federation/hospital/unlink", data={"csrf": ""})
    assert answer.status_code == 403
    await browser.open("/auth/federation/hospital/link")
    await browser.submit()
    outside.person = person("attacker")
    back = await Traveller(people, browser).out_there(browser.redirected_to)
    other = await people.signed_in("careful")  # the link was begun in another session: it does not end in this one
    other.http.cookies.set(
        "foramen-federation", browser.http.cookies["foramen-federation"], domain="localhost.local", path="/"
    )
    await other.open(back)
    assert people.execute("SELECT 1 FROM identity.federated_account WHERE subject = 'attacker'") == []
    people.execute("UPDATE identity.session SET authenticated_at = now() - interval '1 hour' WHERE account = 'careful'")
    page = await browser.open("/auth/federation/hospital/link")
    assert "/auth/login" in str(page.url)


async def test_a_linked_identity_or_account_is_not_linked_twice(people: People, outside: OutsideProvider):
    for name, subject, word in (("one", "x-1", "已关联。"), ("two", "x-1", "已经与其他"), ("one", "x-2", "已经与其他")):
        people.add(name)
        browser = await people.signed_in(name)
        await browser.open("/auth/federation/hospital/link")
        await browser.submit()
        outside.person = person(subject)
        page = await browser.open(await Traveller(people, browser).out_there(browser.redirected_to))
        assert word in page.text


async def test_an_account_that_a_provider_made_is_not_linked_to_another(people: People, outside: OutsideProvider):
    outside.person = person("owned", "it")
    guest = Traveller.of(people)
    await guest.sign_in()
    page = await guest.browser.open("/auth/federation/hospital/link")
    assert "/auth/login" in str(page.url)


async def test_a_link_does_not_pass_to_the_next_holder_of_a_name(people: People, outside: OutsideProvider):
    trust(people, "hospital", outside.issuer, create_accounts=False)
    people.add("desk")
    browser = await people.signed_in("desk")
    await browser.open("/auth/federation/hospital/link")
    await browser.submit()
    outside.person = person("former")
    await browser.open(await Traveller(people, browser).out_there(browser.redirected_to))
    assert (await Traveller.of(people).sign_in()).status_code == 303
    with transaction(people.database_url) as connection:
        save_account(connection, "desk", PASSWORD, "physician", practitioner="somebody-else")
    assert (await Traveller.of(people).sign_in()).status_code == 403


async def test_a_provider_that_is_switched_off_takes_all_it_gave(people: People, outside: OutsideProvider):
    outside.person = person("given", "it")
    guest = Traveller.of(people)
    await guest.sign_in()
    offline = family(people, "given@hospital", "openid offline_access")
    with transaction(people.database_url) as connection:
        set_enabled(connection, "hospital", enabled=False)
        end_of_provider(connection, "hospital", "test")
    assert await guest.account() is None
    assert revoked(people, offline)
    page = await Traveller.of(people).browser.open("/auth/federation/hospital/start")
    assert page.status_code == 403
    assert "/federation/hospital/" not in (await people.browser().open("/auth/login")).text


# --- signing out


async def test_their_sign_out_ends_our_session_and_its_tokens(people: People, outside: OutsideProvider):
    outside.person = person("leaver", "spine-surgeons")
    here, elsewhere = Traveller.of(people), Traveller.of(people)
    await here.sign_in()
    there_first = outside.sid
    outside.behave()  # another session there
    await elsewhere.sign_in()
    outside.sid, token = there_first, ""
    online = family(people, "leaver@hospital", "openid")
    people.execute(
        "UPDATE identity.token_family SET session_digest = (SELECT session_digest FROM identity.federated_session"
        " WHERE sid = :sid) WHERE family = :f",
        sid=there_first,
        f=online,
    )
    offline = family(people, "leaver@hospital", "openid offline_access")
    token = outside.logout_token()
    async with people.http() as http:
        answer = await http.post("/auth/federation/hospital/backchannel-logout", data={"logout_token": token})
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        again = await http.post("/auth/federation/hospital/backchannel-logout", data={"logout_token": token})
        assert again.status_code == 400  # told before
    assert await here.account() is None
    assert await elsewhere.account() == "leaver@hospital"
    assert revoked(people, online)
    assert not revoked(people, offline)
    async with people.http() as http:
        all_of_them = outside.logout_token(sid=None)
        answer = await http.post("/auth/federation/hospital/backchannel-logout", data={"logout_token": all_of_them})
        assert answer.status_code == 200
    assert await elsewhere.account() is None
    assert ("0", f"{outside.issuer}: session ended there") in people.events("110123")


async def test_a_sign_in_that_waits_for_its_second_factor_ends_with_theirs(people: People, outside: OutsideProvider):
    trust(people, "hospital", outside.issuer, roles=[{"group": "adm", "role": "system-administrator"}])
    outside.person = person("half", "adm")
    guest = Traveller.of(people)
    page = await guest.sign_in()
    otp = otp_of(page.text)
    async with people.http() as http:
        answer = await http.post(
            "/auth/federation/hospital/backchannel-logout", data={"logout_token": outside.logout_token()}
        )
        assert answer.status_code == 200
    await guest.browser.submit(code=otp.now())
    assert await guest.account() is None


async def test_a_session_that_ended_there_meanwhile_does_not_begin_here(people: People, outside: OutsideProvider):
    outside.person = person("racer", "it")
    guest = Traveller.of(people)
    back = await guest.out_there(await guest.leave())
    async with people.http() as http:
        await http.post("/auth/federation/hospital/backchannel-logout", data={"logout_token": outside.logout_token()})
    page = await guest.browser.open(back)
    assert page.status_code == 403
    assert "已经结束" in page.text


async def test_our_sign_out_leads_through_theirs_and_back(people: People, outside: OutsideProvider):
    outside.person = person("tidy", "it")
    guest = Traveller.of(people)
    await guest.sign_in()
    await guest.browser.open("/auth/logout")
    page = await guest.browser.submit()
    there = page.headers["refresh"].removeprefix("0; url=")
    query = {key: value[0] for key, value in parse_qs(urlsplit(there).query).items()}
    assert there.startswith(f"{outside.issuer}/logout?")
    assert query["client_id"] == "foramen-here"
    assert query["id_token_hint"].count(".") == 2
    assert query["post_logout_redirect_uri"].endswith("/auth/federation/hospital/signed-out")
    page = await guest.browser.open(await guest.out_there(there))
    assert "您已退出登录" in page.text
    assert await guest.account() is None
    assert people.execute("SELECT 1 FROM identity.federated_session WHERE account = 'tidy@hospital'") == []


async def test_a_renewed_session_still_ends_with_theirs(people: People, outside: OutsideProvider):
    outside.person = person("renewed", "it")
    guest = Traveller.of(people)
    await guest.sign_in()
    before = guest.session
    page = await guest.browser.open("/auth/enrol?then=account")
    await guest.browser.submit(code=otp_of(page.text).now())
    assert guest.session != before
    async with people.http() as http:
        await http.post("/auth/federation/hospital/backchannel-logout", data={"logout_token": outside.logout_token()})
    assert await guest.account() is None


async def test_a_provider_that_is_down_breaks_nothing_else(people: People):
    trust(people, "gone", "http://127.0.0.1:9")
    page = await people.browser().open("/auth/federation/gone/start")
    assert page.status_code == 503
    page = await people.browser().open("/auth/login")
    assert page.status_code == 200
    assert page.text.count("/auth/federation/gone/start") == 1
