"""The walk through the code flow: which request comes next, sent for real, and what its answer leads to.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#launch-and-authorization-sequence
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from joserfc import jwt

from foramen.identity.environment import Environment
from foramen.kernel.errors import ConflictError, InvalidRequestError
from foramen.kernel.secret_files import read_or_create_key
from foramen.launcher import faults, steps
from foramen.launcher.faults import FAULTS, Fault
from foramen.launcher.sending import json_of, recorded, send
from foramen.launcher.steps import HttpRequest
from foramen.launcher.tokens import verify, verify_id_token
from foramen.launcher.trials import ANSWERED, MOST_EXCHANGES, READY, WAITING, Exchange, Trial

DISCOVERY, AUTHORIZE, CALLBACK, TOKEN, KEYS = "discovery", "authorize", "callback", "token", "keys"
PATIENT, OBSERVATIONS, STUDIES = "patient", "observations", "studies"
REFRESH, INTROSPECTION, REVOCATION = "refresh", "introspection", "revocation"
ORDER = (
    *(DISCOVERY, AUTHORIZE, CALLBACK, TOKEN, KEYS),
    *(PATIENT, OBSERVATIONS, STUDIES, INTROSPECTION, REFRESH, REVOCATION),
)
"""The steps as the timeline shows them."""
ACTIONS = ORDER[ORDER.index(PATIENT) :]
"""The steps that a person asks for one by one, with a token."""
_ASSERTION_S = 60


def fault_of(trial: Trial) -> Fault | None:
    """Return the fault the trial is made with."""
    return FAULTS.get(trial.fault)


def _at(trial: Trial, *places: str) -> Fault | None:
    fault = fault_of(trial)
    return fault if fault is not None and fault.at in places else None


async def discover(env: Environment, trial: Trial) -> None:
    """Ask the server where its endpoints are; the trial goes on with what it says."""
    exchange = await send(env, DISCOVERY, steps.discovery(trial.aud))
    trial.endpoints = steps.wanted_endpoints(json_of(exchange))
    exchange.checks = [("issuer", trial.endpoints.get("issuer") == env.settings.issuer, env.settings.issuer)]
    trial.exchanges.append(exchange)


def authorization(trial: Trial) -> HttpRequest:
    """Return the authorization request of a trial, with its fault."""
    parameters = steps.authorization_parameters(
        redirect_uri=trial.redirect_uri,
        scope=trial.scope,
        state=trial.state,
        aud=trial.aud,
        verifier=trial.verifier,
        nonce=trial.nonce,
        launch=trial.launch,
        consent=trial.consent,
    )
    fault = _at(trial, faults.AUTHORIZE, faults.DIRECT)
    if fault is not None:
        parameters = fault.change(parameters)
    return steps.authorize(_endpoint(trial, "authorization_endpoint"), parameters)


def _endpoint(trial: Trial, name: str) -> str:
    """Return a published endpoint.

    Raises
    ------
    ConflictError
        Discovery did not name it.
    """
    if name not in trial.endpoints:
        raise ConflictError(f"The discovery document names no {name}")
    return trial.endpoints[name]


async def leave(env: Environment, trial: Trial) -> str | None:
    """Do the authorization step: return where the browser goes, or None when the server was asked directly.

    A request that nobody would be sent back from is not made by the browser.
    """
    if trial.phase != READY:
        raise ConflictError("This trial has asked for authorization already")
    request = authorization(trial)
    if _at(trial, faults.DIRECT):
        trial.exchanges.append(await send(env, AUTHORIZE, request, faulty=True))
        trial.phase = ANSWERED
        return None
    spoilt = bool(_at(trial, faults.AUTHORIZE))
    trial.exchanges.append(recorded(AUTHORIZE, request, sender="browser", faulty=spoilt))
    trial.phase = WAITING
    return request.url


async def come_back(env: Environment, trial: Trial, url: str, answer: dict[str, str]) -> None:
    """Take the answer of the authorization endpoint, check it as an app has to, and exchange the code.

    A code lives a minute: it is exchanged at once, not when somebody has read this far.
    """
    if trial.phase != WAITING:
        raise ConflictError("This trial has had its answer already")
    trial.phase = ANSWERED
    exchange = recorded(CALLBACK, HttpRequest("GET", url), sender="browser")
    exchange.checks = [
        ("state", answer.get("state") == trial.state, answer.get("state", "")),
        ("iss", answer.get("iss") == trial.endpoints.get("issuer"), answer.get("iss", "")),
    ]
    if "error" in answer:
        said = answer.get("error_description", "")
        exchange.checks.append(("error", False, f"{answer['error']}{': ' if said else ''}{said}"))
    trial.exchanges.append(exchange)
    code = answer.get("code")
    if not all(good for _, good, _ in exchange.checks) or code is None:
        return
    await _exchange_code(env, trial, code)


async def _exchange_code(env: Environment, trial: Trial, code: str) -> None:
    request = steps.token(
        _endpoint(trial, "token_endpoint"), code=code, redirect_uri=trial.redirect_uri, verifier=trial.verifier
    )
    fault = _at(trial, faults.TOKEN)
    repeats = fault is not None and fault.name == faults.REPEATED_CODE
    if fault is not None and not repeats:
        request = fault.spoil(request)
    exchange = await send(env, TOKEN, request, faulty=fault is not None and not repeats)
    trial.exchanges.append(exchange)
    _take_tokens(trial, exchange)
    if repeats:
        trial.exchanges.append(await send(env, TOKEN, request, faulty=True))
    if trial.tokens:
        await _verify(env, trial)


def _take_tokens(trial: Trial, exchange: Exchange) -> None:
    body = json_of(exchange)
    for name in ("access_token", "refresh_token", "id_token"):
        if isinstance(body.get(name), str):
            trial.tokens[name] = body[name]
    if isinstance(body.get("patient"), str):
        trial.patient = body["patient"]


async def _verify(env: Environment, trial: Trial) -> None:
    """Read the published keys and verify the tokens with them, as an app and a resource server do."""
    exchange = await send(env, KEYS, steps.keys(_endpoint(trial, "jwks_uri")))
    jwks, issuer, now = json_of(exchange), trial.endpoints.get("issuer", ""), time.time()
    access, identity = trial.tokens.get("access_token", ""), trial.tokens.get("id_token")
    found = verify(access, jwks, issuer=issuer, audience=env.settings.origin, now=now)
    exchange.checks = [(f"access_token {name}", good, said) for name, good, said in found]
    if identity is not None:
        of_id = verify(identity, jwks, issuer=issuer, audience=steps.CLIENT_ID, now=now)
        of_id += verify_id_token(identity, nonce=trial.nonce, access_token=access)
        exchange.checks += [(f"id_token {name}", good, said) for name, good, said in of_id]
    trial.exchanges.append(exchange)


async def act(env: Environment, trial: Trial, action: str) -> None:
    """Do one of the steps that come after the tokens.

    Raises
    ------
    InvalidRequestError
        There is no such step.
    ConflictError
        The trial has no token for it, or has taken as many steps as it can keep.
    """
    if action not in _DOING:
        raise InvalidRequestError("There is no such step")
    if trial.is_full:
        raise ConflictError(
            f"A trial keeps {MOST_EXCHANGES} requests, and this one has them all; end it and start another"
        )
    await _DOING[action](env, trial)


async def let_go(env: Environment, trial: Trial) -> None:
    """Revoke the tokens of a trial that ends, also of one that is full: what nobody has any more shall not live on."""
    if trial.tokens:
        await _revoke(env, trial)


def _token(trial: Trial, name: str) -> str:
    if name not in trial.tokens:
        raise ConflictError(f"The trial has no {name}")
    return trial.tokens[name]


def _presented(trial: Trial) -> tuple[str, bool]:
    """Return the token to show at a resource, and whether it is the wrong one on purpose."""
    spoilt = _at(trial, faults.RESOURCE) is not None
    return _token(trial, "id_token" if spoilt else "access_token"), spoilt


async def _read(env: Environment, trial: Trial, step: str, request: HttpRequest, *, spoilt: bool) -> None:
    trial.exchanges.append(await send(env, step, request, faulty=spoilt))


async def _patient(env: Environment, trial: Trial) -> None:
    presented, spoilt = _presented(trial)
    await _read(env, trial, PATIENT, steps.patient(trial.aud, trial.patient, presented), spoilt=spoilt)


async def _observations(env: Environment, trial: Trial) -> None:
    presented, spoilt = _presented(trial)
    await _read(env, trial, OBSERVATIONS, steps.observations(trial.aud, trial.patient, presented), spoilt=spoilt)


async def _studies(env: Environment, trial: Trial) -> None:
    presented, spoilt = _presented(trial)
    await _read(env, trial, STUDIES, steps.studies(env.settings.dicom_web_base, presented), spoilt=spoilt)


async def _refresh(env: Environment, trial: Trial) -> None:
    request = steps.refresh(_endpoint(trial, "token_endpoint"), _token(trial, "refresh_token"))
    exchange = await send(env, REFRESH, request)
    trial.exchanges.append(exchange)
    _take_tokens(trial, exchange)
    if _at(trial, faults.REFRESH):
        trial.exchanges.append(await send(env, REFRESH, request, faulty=True))


async def _introspect(env: Environment, trial: Trial) -> None:
    assertion = _assertion(env)
    request = steps.introspect(_endpoint(trial, "introspection_endpoint"), _token(trial, "access_token"), assertion)
    exchange = await send(env, INTROSPECTION, request)
    # The person may read what was asked, not hold the proof of another client: without its signature it is none.
    exchange.form = {**(exchange.form or {}), "client_assertion": f"{assertion.rpartition('.')[0]}.…"}
    trial.exchanges.append(exchange)


def _assertion(env: Environment) -> str:
    """Sign the proof of the client that introspects (RFC 7523 §3): good once, for a minute."""
    key = read_or_create_key(env.settings.home, steps.INTROSPECTING_CLIENT_ID, "P-384")
    now, name = int(time.time()), steps.INTROSPECTING_CLIENT_ID
    claims: dict[str, Any] = {"iss": name, "sub": name, "aud": f"{env.settings.origin}/auth/token", "iat": now}
    claims |= {"exp": now + _ASSERTION_S, "jti": uuid.uuid4().hex}
    return jwt.encode({"alg": "ES384", "kid": str(key.kid), "typ": "JWT"}, claims, key, algorithms=["ES384"])


async def _revoke(env: Environment, trial: Trial) -> None:
    """Revoke everything of this authorization: the refresh token takes its family along (RFC 7009 §2.1)."""
    presented = trial.tokens.get("refresh_token") or _token(trial, "access_token")
    exchange = await send(env, REVOCATION, steps.revoke(_endpoint(trial, "revocation_endpoint"), presented))
    trial.exchanges.append(exchange)


_DOING: dict[str, Callable[[Environment, Trial], Awaitable[None]]] = {
    PATIENT: _patient,
    OBSERVATIONS: _observations,
    STUDIES: _studies,
    REFRESH: _refresh,
    INTROSPECTION: _introspect,
    REVOCATION: _revoke,
}
