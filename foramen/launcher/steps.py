"""What each step of the code flow sends: pure functions from what is known to one HTTP request.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html; RFC 6749, 7009, 7517, 7636, 7662, 9207
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

CLIENT_ID = "foramen-launcher"
INTROSPECTING_CLIENT_ID = "foramen-launcher-introspection"
PATH = "/apps/launcher"
CALLBACK = f"{PATH}/callback"
FORM = "application/x-www-form-urlencoded"
FHIR_JSON, DICOM_JSON = "application/fhir+json", "application/dicom+json"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DEFAULT_SCOPE = "openid fhirUser profile online_access launch/patient patient/*.rs"
EHR_SCOPE = "launch openid fhirUser profile online_access patient/*.rs"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, as it goes over the wire."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    form: dict[str, str] | None = None

    @property
    def body(self) -> str | None:
        """The form, encoded."""
        return None if self.form is None else urlencode(self.form)

    def as_curl(self, variables: dict[str, str] | None = None) -> str:
        """Write the request as a curl command; values of `variables` become `$NAME`, to be set once in the shell.

        Parameters
        ----------
        variables : value (a token) → name of the shell variable
        """
        parts = ["curl -i" if self.method in ("GET", "POST") else f"curl -i -X {self.method}"]
        parts += [f"-H {_quoted(f'{name}: {value}', variables)}" for name, value in self.headers.items()]
        if self.form is not None:
            parts += [f"--data-urlencode {_quoted(f'{name}={value}', variables)}" for name, value in self.form.items()]
        parts.append(shlex.quote(self.url))
        return " \\\n  ".join(parts)


def _quoted(text: str, variables: dict[str, str] | None) -> str:
    """Quote one word for a POSIX shell; inside double quotes only where nothing but our variable is expanded."""
    for value, name in (variables or {}).items():
        if value and value in text:
            named = text.replace(value, f"${name}", 1)
            if not any(mark in text for mark in '"$`\\!'):
                return f'"{named}"'
    return shlex.quote(text)


def challenge_of(verifier: str) -> str:
    """Return the S256 challenge of a code verifier (RFC 7636 §4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def discovery(fhir_base: str) -> HttpRequest:
    """Ask where the endpoints are (SMART App Launch §Conformance)."""
    return HttpRequest("GET", f"{fhir_base}/.well-known/smart-configuration", {"Accept": "application/json"})


def authorization_parameters(
    *, redirect_uri: str, scope: str, state: str, aud: str, verifier: str, nonce: str, launch: str, consent: bool
) -> dict[str, str]:
    """Return the parameters of the authorization request, in the order of SMART's table."""
    parameters = {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": redirect_uri,
        "launch": launch,
        "scope": scope,
        "state": state,
        "aud": aud,
        "code_challenge": challenge_of(verifier),
        "code_challenge_method": "S256",
        "nonce": nonce if "openid" in scope.split() else "",
        "prompt": "consent" if consent else "",
    }
    return {name: value for name, value in parameters.items() if value}


def authorize(endpoint: str, parameters: dict[str, str]) -> HttpRequest:
    """Send the browser to the authorization server (RFC 6749 §4.1.1)."""
    return HttpRequest("GET", f"{endpoint}?{urlencode(parameters, quote_via=quote)}")


def _post(endpoint: str, form: dict[str, str]) -> HttpRequest:
    return HttpRequest("POST", endpoint, {"Accept": "application/json", "Content-Type": FORM}, form)


def token(endpoint: str, *, code: str, redirect_uri: str, verifier: str) -> HttpRequest:
    """Exchange the code (RFC 6749 §4.1.3, RFC 7636 §4.5)."""
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
    return _post(endpoint, form | {"client_id": CLIENT_ID, "code_verifier": verifier})


def refresh(endpoint: str, refresh_token: str) -> HttpRequest:
    """Ask for the next tokens (RFC 6749 §6)."""
    return _post(endpoint, {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": CLIENT_ID})


def revoke(endpoint: str, presented: str) -> HttpRequest:
    """Give a token back (RFC 7009 §2.1)."""
    return _post(endpoint, {"token": presented, "client_id": CLIENT_ID})


def introspect(endpoint: str, access_token: str, assertion: str) -> HttpRequest:
    """Ask what a token is, as a resource server that authenticates itself (RFC 7662 §2.1)."""
    proof = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
    return _post(endpoint, {"token": access_token, **proof})


def keys(jwks_uri: str) -> HttpRequest:
    """Read the keys that sign (RFC 7517 §5)."""
    return HttpRequest("GET", jwks_uri, {"Accept": "application/json"})


def _bearer(url: str, presented: str, accept: str) -> HttpRequest:
    return HttpRequest("GET", url, {"Authorization": f"Bearer {presented}", "Accept": accept})


def patient(fhir_base: str, logical_id: str | None, presented: str) -> HttpRequest:
    """Read the patient in context, or a few patients when there is none (RFC 6750 §2.1)."""
    where = f"Patient/{quote(logical_id, safe='')}" if logical_id else "Patient?_count=3"
    return _bearer(f"{fhir_base}/{where}", presented, FHIR_JSON)


def observations(fhir_base: str, logical_id: str | None, presented: str) -> HttpRequest:
    """Search a few Observations with the same token."""
    whose = f"patient={quote(logical_id, safe='')}&" if logical_id else ""
    return _bearer(f"{fhir_base}/Observation?{whose}_count=3", presented, FHIR_JSON)


def studies(dicom_web_base: str, presented: str) -> HttpRequest:
    """Search imaging studies with the same token (DICOM PS3.18 §10.6, QIDO-RS)."""
    return _bearer(f"{dicom_web_base}/studies?limit=3", presented, DICOM_JSON)


def launch_location(launch_url: str, iss: str, launch: str | None) -> str:
    """Return where an EHR launch opens an app: its launch URL with `iss` and `launch`."""
    query = urlencode({"iss": iss, **({"launch": launch} if launch else {})})
    return f"{launch_url}{'&' if '?' in launch_url else '?'}{query}"


def wanted_endpoints(document: Any) -> dict[str, str]:
    """Take the endpoints that the flow uses out of a discovery document; what is missing is left out."""
    names = (
        *("authorization_endpoint", "token_endpoint", "introspection_endpoint", "revocation_endpoint"),
        *("jwks_uri", "issuer"),
    )
    found = document if isinstance(document, dict) else {}
    return {name: str(found[name]) for name in names if isinstance(found.get(name), str)}
