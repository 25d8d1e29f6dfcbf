"""`POST /auth/launch`: the portal or an EHR asks for a launch token to open an app for a patient.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#launch-app-ehr-launch
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

import orjson
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from foramen.identity.audit_outbox import record
from foramen.identity.endpoints.current_session import current_session
from foramen.identity.endpoints.token import NO_STORE
from foramen.identity.environment import Environment
from foramen.identity.oauth.clients import find_client
from foramen.identity.oauth.launch_parameters import checked_context, checked_style_url
from foramen.identity.oauth.launches import LAUNCH_LIFETIME, Launch, create_launch
from foramen.identity.parameters import client_address
from foramen.identity.people.accounts import Account, find_account
from foramen.identity.security_event import SUCCESS, SecurityEvent
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotAuthenticatedError,
    NotFoundError,
    UnsupportedMediaTypeError,
)
from foramen.kernel.http_edge import authenticate, read_body

_MAX_BYTES = 16 * 1024
_LOGICAL_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


async def launch(env: Environment, request: Request) -> Response:
    """Make a launch token bound to the caller, an app and a patient."""
    body = await _body(request)
    context = authenticate(request, env.verifier) if "authorization" in request.headers else None
    if context is None:
        _same_origin(env, request)

    def work(connection: Connection) -> dict[str, Any]:
        account = _caller(env, connection, request, context)
        app = find_client(connection, body["client_id"])
        if app is None or app.launch_url is None:
            raise NotFoundError("No app with a launch URL has this client_id")
        token = create_launch(connection, Launch(account=account.name, **body))
        event = SecurityEvent(
            what="launch",
            outcome=SUCCESS,
            account=account.name,
            client_id=app.client_id,
            fhir_user=account.fhir_user,
            patient=body["patient"],
            address=client_address(request),
        )
        record(connection, event)
        query = urlencode({"iss": env.settings.fhir_base, "launch": token})
        separator = "&" if "?" in app.launch_url else "?"
        return {
            "launch": token,
            "launch_url": f"{app.launch_url}{separator}{query}",
            "expires_in": int(LAUNCH_LIFETIME.total_seconds()),
        }

    answer = await env.database.run(work)
    env.audit.wake()
    return JSONResponse(answer, headers=NO_STORE)


def _caller(env: Environment, connection: Connection, request: Request, context: AccessContext | None) -> Account:
    """Return the practitioner who asks: by the bearer token of a first-party app, or by the session."""
    if context is not None:
        app = find_client(connection, context.client_id)
        account = find_account(connection, context.subject) if app is not None and app.first_party else None
        if account is None:
            raise ForbiddenError("Only a person in an app of this installation may launch apps")
    else:
        session = current_session(env, connection, request)
        if session is None:
            raise NotAuthenticatedError("Sign in first", headers={"WWW-Authenticate": 'Bearer realm="foramen"'})
        account = session.account
    if account.practitioner is None:
        raise ForbiddenError("Only a practitioner may launch apps for a patient")
    return account


def _same_origin(env: Environment, request: Request) -> None:
    """With a cookie, take the request from our own pages only (against CSRF)."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if origin not in (None, env.settings.origin) or site not in (None, "same-origin", "none"):
        raise ForbiddenError("The request comes from another site")


async def _body(request: Request) -> dict[str, Any]:
    """Read the launch request; JSON only, which also keeps plain cross-site forms out."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaTypeError("The body must be application/json", issue_code="not-supported")
    try:
        content = orjson.loads(await read_body(request, _MAX_BYTES))
    except orjson.JSONDecodeError as exc:
        raise InvalidRequestError("The body is not JSON") from exc
    if not isinstance(content, dict) or not isinstance(content.get("client_id"), str):
        raise InvalidRequestError("client_id is required")
    body: dict[str, Any] = {"client_id": content["client_id"]}
    for name, kind in (("patient", "Patient"), ("encounter", "Encounter")):
        value = content.get(name)
        if value is None and name == "encounter":
            continue
        if not isinstance(value, str) or not _LOGICAL_ID.fullmatch(value.removeprefix(f"{kind}/")):
            raise InvalidRequestError(f"{name} is a logical id")
        body[name] = value.removeprefix(f"{kind}/")
    intent = content.get("intent")
    if intent is not None:
        if not isinstance(intent, str) or not intent.isprintable() or len(intent) > 256:
            raise InvalidRequestError("intent is a short text")
        body["intent"] = intent
    banner = content.get("need_patient_banner", True)
    if not isinstance(banner, bool):
        raise InvalidRequestError("need_patient_banner is true or false")
    style, further = content.get("smart_style_url"), content.get("fhirContext")
    return body | {
        "need_patient_banner": banner,
        "smart_style_url": None if style is None else checked_style_url(style),
        "fhir_context": None if further is None else checked_context(further),
    }
