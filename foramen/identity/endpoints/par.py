"""`/auth/par`: a client sends its authorization request directly, authenticated, and gets a reference to it.

RFC 9126; the request is checked as at the authorization endpoint, so that its faults are told to the client at once.
"""

from __future__ import annotations

from authlib.oauth2.rfc6749 import InvalidRequestError, OAuth2Error
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.endpoints.token import answer
from foramen.identity.environment import Environment
from foramen.identity.oauth.authorization_flow import Progress, Step, begin, check_smart_parameters
from foramen.identity.oauth.authorization_requests import PendingRequest
from foramen.identity.oauth.authorization_server import Answer, FormRequest, SmartAuthorizationServer
from foramen.identity.oauth.clients import Client
from foramen.identity.oauth.grants import CLIENT_AUTH_METHODS
from foramen.identity.oauth.pushed_requests import LIFETIME_S, PREFIX, save_pushed_request, take_pushed_request

_CREDENTIALS = ("client_assertion", "client_assertion_type", "client_secret")


async def par(env: Environment, request: Request) -> Response:
    """Take an authorization request."""
    return await answer(env, request, lambda server, form: _push(env, server, form), "par")


def _push(env: Environment, server: SmartAuthorizationServer, form: FormRequest) -> Answer:
    try:
        client: Client = server.authenticate_client(form, CLIENT_AUTH_METHODS, "token")
        form.client = client
        if "request_uri" in form.form:
            raise InvalidRequestError("request_uri must not be pushed")
        parameters = {name: value for name, value in form.form.items() if name not in _CREDENTIALS}
        if parameters.setdefault("client_id", client.client_id) != client.client_id:
            raise InvalidRequestError("client_id and authentication name different clients")
        pushed = FormRequest(parameters, {}, "GET", form.address, "par")
        if parameters.get("response_type") != "code":
            raise InvalidRequestError("Only response_type code is supported")
        server.get_consent_grant(pushed)
        check_smart_parameters(env, parameters)
    except OAuth2Error as error:
        error.redirect_uri = None  # the client is told here, in JSON (RFC 9126 §2.3), and nobody is redirected
        return server.handle_error_response(form, error)
    request_uri = save_pushed_request(server.connection, client.client_id, parameters)
    return Answer(201, {"request_uri": request_uri, "expires_in": LIFETIME_S}, {})


def begin_pushed(
    env: Environment, connection: Connection, parameters: dict[str, str], address: str | None
) -> Progress | tuple[str, PendingRequest]:
    """Begin an authorization, from the pushed request when the parameters refer to one (RFC 9126 §4).

    Only `client_id` and `request_uri` count then; whatever else the browser brought is ignored.
    """
    request_uri = parameters.get("request_uri", "")
    if not request_uri.startswith(PREFIX):
        return begin(env, connection, parameters, address)
    pushed = take_pushed_request(connection, parameters.get("client_id", ""), request_uri)
    if pushed is None:
        return Progress(Step.ERROR, detail="invalid_request_uri: The request_uri is unknown, used or expired")
    return begin(env, connection, pushed, address, pushed=True)
