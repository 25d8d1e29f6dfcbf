"""`/auth/token`, `/auth/revoke`, `/auth/introspect` and `/auth/jwks`: the endpoints apps and services call.

RFC 6749 §3.2 and §5, RFC 7009, RFC 7662, RFC 7517
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson
from authlib.oauth2.rfc6749 import InvalidClientError, InvalidRequestError
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from foramen.identity.database import utc_now
from foramen.identity.environment import Environment
from foramen.identity.oauth.authorization_server import Answer, FormRequest, SmartAuthorizationServer
from foramen.identity.oauth.checked_issuing import TAKE_CODE
from foramen.identity.oauth.first_reading import code_asked
from foramen.identity.oauth.remote_keys import KeysNeeded
from foramen.identity.parameters import client_address, form_parameters

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache", "X-Content-Type-Options": "nosniff"}
_KEYS_AGE_S = 300


async def token(env: Environment, request: Request) -> Response:
    """Exchange a code, a refresh token or a client's own credentials for tokens."""
    return await answer(env, request, _issue)


def _brings_code(data: Mapping[str, str]) -> bool:
    return data.get("grant_type") == "authorization_code" and "code" in data and "client_id" in data


def _issue(server: SmartAuthorizationServer, form: FormRequest) -> Answer:
    data = form.payload.data
    if _brings_code(data):
        server.code_reading(data["code"], data["client_id"])  # reads the client, too, which is asked for next
    answered: Answer = server.create_token_response(form)
    return answered


async def revoke(env: Environment, request: Request) -> Response:
    """Revoke a token."""
    return await answer(env, request, lambda server, form: server.create_endpoint_response("revocation", form))


async def introspect(env: Environment, request: Request) -> Response:
    """Describe a token."""
    return await answer(env, request, lambda server, form: server.create_endpoint_response("introspection", form))


async def jwks(env: Environment, request: Request) -> Response:
    """Publish the keys that verify our tokens."""
    return JSONResponse(env.signer.public_keys(), headers={"Cache-Control": f"public, max-age={_KEYS_AGE_S}"})


async def answer(
    env: Environment,
    request: Request,
    act: Callable[[SmartAuthorizationServer, FormRequest], Answer],
    endpoint: str = "token",
) -> Response:
    """Do what a client asks for in one transaction, and answer in JSON (RFC 6749 §5).

    Keys that a client publishes at a URL are fetched between two transactions, never inside one.
    """
    data, address = await form_parameters(request), client_address(request)

    def work(connection: Connection) -> Answer:
        server, form = env.server(connection), FormRequest(data, request.headers, "POST", address, endpoint)
        refusal = _more_than_one_authentication(form)
        if refusal is not None:
            return server.handle_error_response(form, refusal)
        try:
            return act(server, form)
        except UnicodeDecodeError:  # Authlib decodes Basic credentials as UTF-8
            return server.handle_error_response(form, InvalidClientError(status_code=401))

    try:
        if act is _issue and _brings_code(data):
            asked = code_asked(data["code"], data["client_id"], utc_now(), env.settings.session_idle_s)
            done = await env.database.run_checked(work, TAKE_CODE, asked)
        else:
            done = await env.database.run(work)
    except KeysNeeded as needed:
        await env.remote_keys.refresh(needed.uri)
        done = await env.database.run(work)
    env.audit.wake()
    kept = {key: value for key, value in done.headers.items() if key.lower() == "www-authenticate"}
    return Response(orjson.dumps(done.body), done.status, {**NO_STORE, **kept}, "application/json")


def _more_than_one_authentication(form: FormRequest) -> InvalidRequestError | None:
    """RFC 6749 §2.3: a client must not use more than one authentication method in a request."""
    basic = form.headers.get("authorization", "").lower().startswith("basic ")
    if "client_secret" in form.form:
        return InvalidRequestError("The client secret goes into the Authorization header (client_secret_basic)")
    if basic and "client_assertion" in form.form:
        return InvalidRequestError("More than one client authentication")
    return None
