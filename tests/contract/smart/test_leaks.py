"""What belongs to another account or client is indistinguishable from what does not exist: on every path of /auth.

Each path has a probe here, or a line that says why its answers hold nothing that a caller could name of another's; a
path without either fails the suite. A probe asks for another's and for nobody's, and shows that the owner gets more.

RFC 7592 §2, RFC 7662 §2.2
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from foramen.identity.routes import ENDPOINTS
from tests.builders.browser import Browser, forms_of
from tests.contract.smart.conftest import CLIENT_SECRET, ORIGIN, PASSWORD, App, Smart, sign_in
from tests.contract.smart.test_registration import METADATA

Told = tuple[int, dict[str, str], str]
_NONCE = re.compile(r"(?<=nonce[-=])\"?[A-Za-z0-9_-]+")
_ASSERTS = {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}


@dataclass
class Answers:
    """What the caller is told of another's, of nobody's, and what the owner is told."""

    other: Told
    nobody: Told
    owner: Told


def told(response: httpx.Response, *names: str) -> Told:
    """Status, headers and body, without the names that were asked for and what is made anew for each answer."""
    text = _NONCE.sub("<nonce>", response.text)
    for name in names:
        text = text.replace(name, "<name>")
    headers = {name: value for name, value in response.headers.items() if name not in ("date", "set-cookie")}
    headers = {name: _NONCE.sub("<nonce>", value) for name, value in headers.items()}
    headers.pop("content-length", None)
    return response.status_code, headers, text


async def tokens(smart: Smart, app: App) -> dict[str, Any]:
    browser = smart.browser()
    await sign_in(browser, app)
    found: dict[str, Any] = (await app.exchange(browser.answer["code"])).json()
    return found


def unknown_like(token: str) -> str:
    """A token of the same form that was never given out."""
    head, dot, tail = token.rpartition(".")
    return head + dot + secrets.token_urlsafe(len(tail))[: len(tail)]


async def introspect(smart: Smart, portal: App) -> Answers:
    """A client without the right to read everything asks for the token of another's."""
    token = (await tokens(smart, portal))["access_token"]

    async def ask(sent: str, **options: Any) -> Told:
        async with smart.http() as http:
            asserted = {"client_assertion": smart.assertion(aud=f"{ORIGIN}/auth/token"), **_ASSERTS}
            data = {"token": sent, **({} if options else asserted)}
            return told(await http.post("/auth/introspect", data=data, **options), sent)

    return Answers(
        await ask(token), await ask(unknown_like(token)), await ask(token, auth=("symmetric", CLIENT_SECRET))
    )


async def registration(smart: Smart, method: str) -> Answers:
    """Who registered one app asks for another's registration."""
    async with smart.http() as http:
        mine, other = [(await http.post("/auth/register", json=METADATA)).json() for _ in range(2)]
        body = {"json": METADATA | {"client_name": "SYNTHETIC changed"}} if method == "PUT" else {}

        async def ask(client_id: str, token: str) -> Told:
            headers = {"Authorization": f"Bearer {token}"}
            given = {"json": body["json"] | {"client_id": client_id}} if body else {}
            return told(await http.request(method, f"/auth/register/{client_id}", headers=headers, **given), client_id)

        token = mine["registration_access_token"]
        nobody = unknown_like(other["client_id"])
        return Answers(
            await ask(other["client_id"], token),
            await ask(nobody, token),
            await ask(other["client_id"], other["registration_access_token"]),
        )


async def account(
    smart: Smart, portal: App, path: str, name: str, own: Callable[[], str], nobodys: str | None = None
) -> Answers:
    """A person changes on the account page what belongs to another."""
    theirs, mine = smart.browser(), smart.browser()
    for browser, person in ((theirs, "surgeon"), (mine, "other")):
        await sign_in(browser, App(smart, portal.client_id, portal.redirect_uri, portal.scope), person, PASSWORD)
        await browser.open(f"{ORIGIN}/auth/account")

    async def ask(browser: Browser, value: str) -> Told:
        csrf = forms_of(browser.page.text)[0].fields["csrf"]
        answer = await browser.http.post(path, data={"csrf": csrf, name: value})
        return told(answer, value, csrf)

    value = own()
    unknown = nobodys or unknown_like(value)
    return Answers(await ask(mine, value), await ask(mine, unknown), await ask(theirs, value))


async def account_sessions(smart: Smart, portal: App) -> Answers:
    """Another's session is ended by its name on the page."""
    smart.execute("DELETE FROM identity.session")
    another = smart.browser()
    await sign_in(another, App(smart, portal.client_id, portal.redirect_uri, portal.scope))
    value = smart.execute("SELECT session_digest FROM identity.session WHERE account = 'surgeon'")[0][0]
    return await account(smart, portal, "/auth/account/sessions", "session", lambda: value)


async def account_apps(smart: Smart, portal: App) -> Answers:
    """An app that another person let in is withdrawn."""
    growth = App(smart, "growth-app", "https://app.example.org/callback", "openid user/Observation.rs")
    browser = smart.browser()
    await sign_in(browser, growth)
    if "decision" in browser.page.text:
        await browser.submit(decision="allow")
    return await account(smart, portal, "/auth/account/apps", "client", lambda: "growth-app")


async def break_glass_end(smart: Smart, portal: App) -> Answers:
    """Another's emergency access is ended by its id."""
    value = str(uuid.uuid4())
    smart.execute(
        "INSERT INTO identity.break_glass (id, account, patient, reason_code, reason, started_at, until) "
        "VALUES (:id, 'surgeon', 'p1', 'other', 'SYNTHETIC reason', now(), now() + interval '1 hour')",
        id=value,
    )
    return await account(smart, portal, "/auth/break-glass/end", "case", lambda: value, str(uuid.uuid4()))


Probe = Callable[[Smart, App], Awaitable[Answers]]
_OWN = "shows what belongs to the session or the token that asks; nothing of another's can be named"
_FLOW = (
    "goes by the running authorization request in the caller's own cookie; who may be chosen is the FHIR API's answer"
)
_PUBLIC = "says the same to everybody"
PROBES: dict[str, dict[str, Probe] | str] = {
    "/authorize": "answers to the session that asks; which clients there are is no secret (their ids stand in URLs)",
    "/continue": _FLOW,
    "/login": "timing and wording for unknown users: test_throttling.py and test_sign_in.py",
    "/second-factor": _FLOW,
    "/enrol": _OWN,
    "/enrol/passkey": _OWN,
    "/passkey": "offers no list of credentials: test_passkeys.py",
    "/passkey.js": _PUBLIC,
    "/account": _OWN,
    "/account/password": _OWN,
    "/account/factor": "test_account_page.py::test_factors_and_sessions_of_others_cannot_be_touched",
    "/account/recovery-codes": _OWN,
    "/account/sessions": {"another's": account_sessions},
    "/account/apps": {"another's": account_apps},
    "/set-password": "goes by a secret of 256 bits; unknown, used and expired links look alike: test_password_links.py",
    "/break-glass": "shows the session's own; whether a patient exists is not said: test_break_glass.py",
    "/break-glass/end": {"another's": break_glass_end},
    "/consent": _FLOW,
    "/patient": _FLOW,
    "/encounter": _FLOW,
    "/logout": _OWN,
    "/launch": "makes a token for the account that asks; the app that takes it is checked against it: test_launch.py",
    "/token": "a code or refresh token of another client: test_code_flow_attacks.py and test_token_attacks.py",
    "/revoke": "refuses another client's token and says so (RFC 7009 §2.1); who asks holds it: test_token_attacks.py",
    "/introspect": {"another client's": introspect},
    "/userinfo": _OWN,
    "/par": "takes a request and shows none",
    "/register": "takes a registration and shows none",
    "/register/{client_id}": {
        method: (lambda smart, _, method=method: registration(smart, method)) for method in ("GET", "PUT", "DELETE")
    },
    "/jwks": _PUBLIC,
    "/federation": _OWN,
    "/federation/{provider}/start": _PUBLIC,
    "/federation/{provider}/callback": "goes by a state and the cookie of one browser: test_federation_attacks.py",
    "/federation/{provider}/link": _OWN,
    "/federation/{provider}/unlink": _OWN,
    "/federation/{provider}/signed-out": "goes by a state and the cookie of one browser; shows nothing of a person",
    "/federation/{provider}/backchannel-logout": "goes by a signed token: test_federation_attacks.py",
}
CASES = {
    f"{path} {name}": probe
    for path, probes in PROBES.items()
    if isinstance(probes, dict)
    for name, probe in probes.items()
}


def test_every_path_has_a_probe_or_a_reason() -> None:
    assert set(PROBES) == {endpoint.path for endpoint in ENDPOINTS}
    assert all(PROBES.values())


@pytest.mark.parametrize("probe", CASES.values(), ids=CASES)
async def test_anothers_is_as_absent(smart: Smart, portal: App, probe: Probe) -> None:
    answers = await probe(smart, portal)
    assert answers.other == answers.nobody
    assert answers.owner != answers.nobody, "it shows nothing to anybody: it proves nothing"
