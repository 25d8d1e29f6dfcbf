"""Faults to try: each changes one request; what the server answers is never known here, it is asked.

The place in the standard says what a server has to do about it. RFC 6749 §5.2 and §4.1.2.1, RFC 7636 §4.6,
SMART App Launch 2.2, RFC 9700.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from foramen.launcher.steps import HttpRequest

AUTHORIZE, DIRECT, TOKEN, REFRESH, RESOURCE = "authorize", "direct", "token", "refresh", "resource"
"""Where a fault shows: in the browser, in a request that nobody is sent back from, at the token endpoint, …"""
REPEATED_CODE, REPEATED_REFRESH, ID_TOKEN, OLD_LAUNCH, NO_STATE = (
    *("replayed-code", "reused-refresh-token", "id-token-as-access-token", "expired-launch", "missing-state"),
)
_RFC = "https://www.rfc-editor.org/rfc/rfc"
_SMART = "https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html"
Parameters = dict[str, str]


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a standard."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing done wrongly.

    `change` takes the right parameters (query or form) and returns the wrong ones; a fault that is in the order of
    requests, not in one of them, leaves them as they are.
    """

    name: str
    at: str
    places: tuple[Place, ...]
    change: Callable[[Parameters], Parameters] = dict

    def spoil(self, request: HttpRequest) -> HttpRequest:
        """Return the request with its form changed."""
        return replace(request, form=self.change(dict(request.form or {})))


def rfc(number: int, section: str) -> Place:
    """Return a section of an RFC."""
    return Place(f"RFC {number} §{section}", f"{_RFC}{number}#section-{section}")


def _smart(words: str, anchor: str) -> Place:
    return Place(f"SMART App Launch 2.2, {words}", f"{_SMART}#{anchor}")


def _with(**changes: str) -> Callable[[Parameters], Parameters]:
    return lambda parameters: {**parameters, **changes}


def _without(*names: str) -> Callable[[Parameters], Parameters]:
    return lambda parameters: {name: value for name, value in parameters.items() if name not in names}


def _elsewhere(parameters: Parameters) -> Parameters:
    return {**parameters, "redirect_uri": f"{parameters['redirect_uri']}/elsewhere"}


def _another_verifier(parameters: Parameters) -> Parameters:
    return {**parameters, "code_verifier": secrets.token_urlsafe(48)}


_OBTAIN = _smart("Obtain authorization code", "obtain-authorization-code")
_PKCE = _smart("PKCE", "considerations-for-pkce-support")
FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("wrong-verifier", TOKEN, (rfc(7636, "4.6"), rfc(6749, "5.2")), _another_verifier),
        Fault(REPEATED_CODE, TOKEN, (rfc(6749, "4.1.2"), rfc(6749, "10.5"), rfc(6749, "5.2"))),
        Fault("wrong-redirect-uri", DIRECT, (rfc(6749, "4.1.2.1"), rfc(9700, "2.1")), _elsewhere),
        Fault("wrong-redirect-uri-at-token", TOKEN, (rfc(6749, "4.1.3"), rfc(6749, "5.2")), _elsewhere),
        Fault("unknown-scope", AUTHORIZE, (rfc(6749, "3.3"), rfc(6749, "4.1.2.1")), _with(scope="no-such-scope")),
        Fault(OLD_LAUNCH, AUTHORIZE, (_smart("EHR launch", "launch-app-ehr-launch"), rfc(6749, "4.1.2.1"))),
        Fault("invalid-client", TOKEN, (rfc(6749, "5.2"),), _with(client_id="no-such-client")),
        Fault("pkce-plain", AUTHORIZE, (rfc(7636, "4.4.1"), _PKCE), _with(code_challenge_method="plain")),
        Fault("no-pkce", AUTHORIZE, (_PKCE, rfc(7636, "4.4.1")), _without("code_challenge", "code_challenge_method")),
        Fault(NO_STATE, AUTHORIZE, (_OBTAIN, rfc(6749, "10.12")), _without("state")),
        Fault("another-audience", AUTHORIZE, (_OBTAIN,), _with(aud="https://another-server.example/fhir")),
        Fault(ID_TOKEN, RESOURCE, (rfc(6750, "3.1"), rfc(9068, "4"))),
        Fault(REPEATED_REFRESH, REFRESH, (rfc(9700, "4.14.2"), rfc(6749, "5.2"))),
    )
}
