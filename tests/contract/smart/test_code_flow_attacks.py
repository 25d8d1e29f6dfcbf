"""What RFC 6749, 7636, 9207 and 9700 warn of at the authorization endpoint and for codes."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from tests.contract.smart.conftest import APP, CLIENT_SECRET, ORIGIN, App, Smart, sign_in


async def a_code(smart: Smart, app: App, name: str = "surgeon") -> str:
    browser = smart.browser()
    await sign_in(browser, app, name)
    return browser.answer["code"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": 'x"<script>'}, "unsupported_response_type"),
        ({"aud": "https://evil.example/fhir"}, "invalid_request"),
        ({"aud": None}, "invalid_request"),
        ({"scope": None}, "invalid_scope"),
        ({"launch": "guessed", "scope": "openid user/*.rs"}, "invalid_request"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"request": "eyJ"}, "invalid_request"),
        ({"response_mode": "fragment"}, "invalid_request"),
    ],
)
async def test_faulty_request_returns_to_the_app_with_error_state_and_issuer(smart, portal: App, changes, error):
    browser = smart.browser()
    await browser.open(portal.url(**changes))
    assert browser.redirected_to is not None
    assert browser.redirected_to.startswith(portal.redirect_uri)
    assert browser.answer["error"] == error
    assert browser.answer["state"] == portal.state
    assert browser.answer["iss"] == ORIGIN


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uri": "https://evil.example/"},
        {"redirect_uri": f"{ORIGIN}/?x=1"},
        {"redirect_uri": f"{ORIGIN}/."},
        {"redirect_uri": f"{ORIGIN}@evil.example/"},
        {"redirect_uri": f'{ORIGIN}/"><script>alert(1)</script>'},
        {"redirect_uri": None},
        {"client_id": "nobody"},
        {"client_id": 'x"<script>alert(1)</script>'},
        {"client_id": None},
        {"client_id": "foramen-worker"},
    ],
)
async def test_nobody_is_redirected_to_an_address_that_is_not_registered(smart, portal: App, changes):
    browser = smart.browser()
    page = await browser.open(portal.url(**changes))
    assert browser.redirected_to is None
    assert page.status_code == 400
    assert page.headers["content-type"].startswith("text/html")
    assert "<script" not in page.text
    assert "evil" not in page.text


@pytest.mark.parametrize("name", ["state", "scope", "aud", "redirect_uri", "code_challenge"])
async def test_repeated_parameter_is_refused(smart: Smart, portal: App, name: str):
    """RFC 6749 §3.1: two readers of one request must not see two different values."""
    browser = smart.browser()
    again = urlencode({name: portal.parameters()[name]})
    page = await browser.open(f"{portal.url()}&{again}")
    assert (page.status_code, browser.redirected_to) == (400, None)


async def test_header_injection_and_control_characters_are_refused(smart: Smart, portal: App):
    browser = smart.browser()
    page = await browser.open(portal.url(state="a\r\nSet-Cookie: x=y"))
    assert page.status_code == 400
    assert "x=y" not in str(page.headers)
    page = await browser.open(portal.url(nonce="a\x00b"))
    assert page.status_code == 400


async def test_good_code_with_wrong_verifier_is_refused_and_right_one_works(smart: Smart, portal: App):
    code = await a_code(smart, portal)
    wrong = await portal.exchange(code, code_verifier="x" * 64)
    assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_grant")
    missing = await portal.exchange(code, code_verifier=None)
    assert missing.json()["error"] in ("invalid_request", "invalid_grant")
    challenge = await portal.exchange(code, code_verifier=portal.challenge)
    assert challenge.json()["error"] == "invalid_grant"
    assert (await portal.exchange(code)).status_code == 200


async def test_replayed_code_is_refused_and_revokes_what_it_gave(smart: Smart, portal: App):
    code = await a_code(smart, portal)
    first = (await portal.exchange(code)).json()
    again = await portal.exchange(code)
    assert again.json()["error"] == "invalid_grant"
    assert (await portal.refresh(first["refresh_token"])).json()["error"] == "invalid_grant"
    revoked = smart.execute(
        "SELECT count(*) FROM identity.access_token WHERE revoked_at IS NOT NULL AND jti = :jti",
        jti=smart.service.verifier().verify(first["access_token"]).token_id,
    )
    assert revoked[0][0] == 1


async def test_code_of_another_client_is_refused_without_harm_to_its_owner(smart: Smart, portal: App):
    code = await a_code(smart, portal)
    mixed = await portal.exchange(code, client_id="result-review")
    assert mixed.json()["error"] == "invalid_grant"
    assert (await portal.exchange(code)).status_code == 200


async def test_code_with_another_redirect_uri_is_refused(smart: Smart, portal: App):
    code = await a_code(smart, portal)
    assert (await portal.exchange(code, redirect_uri=APP)).json()["error"] == "invalid_grant"
    assert (await portal.exchange(code, redirect_uri=None)).json()["error"] == "invalid_grant"


async def test_code_runs_out_after_a_minute(smart: Smart, portal: App):
    code = await a_code(smart, portal)
    age = smart.execute("SELECT max(expires_at) - now() < interval '61 seconds' FROM identity.authorization_code")
    assert age[0][0]
    smart.execute("UPDATE identity.authorization_code SET expires_at = now() - interval '1 second'")
    assert (await portal.exchange(code)).json()["error"] == "invalid_grant"


async def test_disabled_user_gets_nothing_for_a_code(smart: Smart, portal: App):
    code = await a_code(smart, portal, "other")
    smart.execute("UPDATE identity.account SET disabled = true WHERE name = 'other'")
    try:
        assert (await portal.exchange(code)).json()["error"] == "invalid_grant"
    finally:
        smart.execute("UPDATE identity.account SET disabled = false WHERE name = 'other'")


async def test_confidential_client_must_authenticate_and_use_pkce(smart: Smart):
    app = App(smart, "symmetric", APP, "openid user/*.rs")
    browser = smart.browser()
    await sign_in(browser, app)
    await browser.submit(decision="allow")
    code = browser.answer["code"]
    assert (await app.exchange(code)).json()["error"] == "invalid_client"
    in_body = await app.exchange(code, client_secret=CLIENT_SECRET)
    assert in_body.json()["error"] == "invalid_request"
    data = {"grant_type": "authorization_code", "code": code, "redirect_uri": APP, "code_verifier": app.verifier}
    async with smart.http() as http:
        wrong = await http.post("/auth/token", data=data, auth=("symmetric", "wrong"))
        assert wrong.status_code == 401
        assert wrong.headers["www-authenticate"].startswith("Basic")
        no_verifier = {key: value for key, value in data.items() if key != "code_verifier"}
        unproved = await http.post("/auth/token", data=no_verifier, auth=("symmetric", CLIENT_SECRET))
        assert unproved.json()["error"] == "invalid_request"
        good = await http.post("/auth/token", data=data, auth=("symmetric", CLIENT_SECRET))
    assert good.status_code == 200


async def test_system_scopes_never_come_from_a_person(smart: Smart):
    app = App(smart, "symmetric", APP, "openid user/*.rs system/*.rs")
    browser = smart.browser()
    await sign_in(browser, app, prompt="consent")
    assert "system/" not in browser.page.text
    await browser.submit(decision="allow")
    async with smart.http() as http:
        data = {
            "grant_type": "authorization_code",
            "code": browser.answer["code"],
            "redirect_uri": APP,
            "code_verifier": app.verifier,
        }
        body = (await http.post("/auth/token", data=data, auth=("symmetric", CLIENT_SECRET))).json()
    assert body["scope"] == "openid user/*.rs"


async def test_scopes_beyond_registration_and_role_are_not_granted(smart: Smart, portal: App):
    browser = smart.browser()
    await sign_in(browser, portal, scope="openid user/*.cruds user/Observation.cud user/Patient.rs?name=x")
    scope = (await portal.exchange(browser.answer["code"])).json()["scope"].split()
    # A granular scope lies within the one of all types; names of parameters are checked where they are asked.
    assert sorted(scope) == ["openid", "user/*.rs", "user/Patient.rs?name=x", "user/Task.u"]


async def test_another_person_cannot_take_over_a_request_on_its_way(smart: Smart, growth: App):
    """The patient picked by one person is forgotten when another one continues the same request."""
    first, second = smart.browser(), smart.browser()
    await sign_in(first, growth)
    await first.submit(1, patient="p2")
    consent_url = str(first.page.url)
    page = await second.open(consent_url)
    assert 'name="password"' in page.text
    await second.submit(username="other", password="correct horse battery")
    assert "/auth/patient" in str(second.page.url)


async def test_unknown_request_id_is_an_error_page(smart: Smart):
    browser = smart.browser()
    for path in ("continue", "login", "consent", "patient"):
        page = await browser.open(f"/auth/{path}?request=unknown")
        assert (page.status_code, browser.redirected_to) == (400, None), path
