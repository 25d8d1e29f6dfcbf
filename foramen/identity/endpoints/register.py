"""`/auth/register`: apps apply for registration and look after it (JSON in, JSON out).

RFC 7591 §3, RFC 7592 §2
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from authlib.oauth2.rfc6749 import OAuth2Error
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from foramen.identity.endpoints.token import NO_STORE
from foramen.identity.environment import Environment
from foramen.identity.oauth.registration import Configuration, Registration, RegistrationRequest, count_change
from foramen.identity.parameters import client_address
from foramen.kernel.errors import InvalidRequestError, NotFoundError, UnsupportedMediaTypeError
from foramen.kernel.http_edge import header, read_body
from foramen.kernel.tokens import bearer_token

MAX_METADATA_BYTES = 32 * 1024


async def register(env: Environment, request: Request) -> Response:
    """Take an application for registration."""
    _offered(env)
    form = RegistrationRequest("POST", await _metadata(request), address=client_address(request))
    return await _answer(env, lambda connection: Registration(connection, env.settings)(form))


async def registration(env: Environment, request: Request) -> Response:
    """Read (GET), replace (PUT) or withdraw (DELETE) a registration."""
    _offered(env)
    if request.method in ("PUT", "DELETE"):
        address = client_address(request)
        await env.database.run(lambda connection: count_change(connection, env.settings, address))
    token = bearer_token(header(request, b"authorization"))
    data = await _metadata(request) if request.method == "PUT" else {}
    form = RegistrationRequest(
        "GET" if request.method == "HEAD" else request.method,
        data,
        address=client_address(request),
        token=token,
        client_id=request.path_params["client_id"],
    )
    return await _answer(env, lambda connection: Configuration(connection, env.settings)(form))


def _offered(env: Environment) -> None:
    if not env.settings.client_registration:
        raise NotFoundError("Registration is not offered here; ask the administrator")


async def _answer(env: Environment, act: Callable[[Connection], tuple[int, Any, Any]]) -> Response:
    def work(connection: Connection) -> tuple[int, Any]:
        try:
            status, body, _ = act(connection)
        except OAuth2Error as error:
            status, body, _ = error(None)
        return status, body

    status, body = await env.database.run(work)
    env.audit.wake()
    if status == 204:
        return Response(status_code=204, headers=NO_STORE)
    return JSONResponse(body, status_code=status, headers=NO_STORE)


async def _metadata(request: Request) -> dict[str, Any]:
    """Read the metadata document: a JSON object, small, no name twice."""
    if (header(request, b"content-type") or "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaTypeError("The body must be application/json", issue_code="not-supported")
    body = await read_body(request, MAX_METADATA_BYTES)
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequestError("The body is not a JSON document") from exc
    if not isinstance(document, dict):
        raise InvalidRequestError("The body is not a JSON object")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name is repeated")
    return dict(pairs)
