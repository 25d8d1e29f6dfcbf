"""What the two pickers of a launch, patient and encounter, do alike: see where the request is, and take the choice.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#launch-context-scopes
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.endpoints.authorize import advance, to_response
from foramen.identity.endpoints.current_session import current_session
from foramen.identity.environment import Environment
from foramen.identity.oauth.authorization_flow import Progress, Step, proceed
from foramen.identity.oauth.authorization_requests import PendingRequest, find_request
from foramen.identity.parameters import client_address
from foramen.identity.people.sessions import Session

Settle = Callable[[Connection, PendingRequest, str], object]


async def state_of(
    env: Environment, request: Request, request_id: str
) -> tuple[Progress, PendingRequest | None, Session | None]:
    """Return what the request waits for, the request, and who is signed in; None: there is none."""

    def work(connection: Connection) -> tuple[Progress, PendingRequest | None, Session | None]:
        progress = advance(env, connection, request, request_id)
        return progress, find_request(connection, request_id), current_session(env, connection, request)

    return await env.database.run(work)


async def take_choice(
    env: Environment, request: Request, request_id: str, session: Session, settle: Settle, chosen: str
) -> Response:
    """Settle what was chosen and go on to the next step.

    Parameters
    ----------
    session : the one in which the choice was checked; another by now ends the request
    settle : writes the choice into the request
    """

    def work(connection: Connection) -> Progress:
        pending, now_signed_in = (
            find_request(connection, request_id),
            current_session(env, connection, request, lock=True),
        )
        if pending is None or now_signed_in is None or now_signed_in.session_digest != session.session_digest:
            return Progress(Step.ERROR)
        settle(connection, pending, chosen)
        settled = find_request(connection, request_id)
        if settled is None:
            return Progress(Step.ERROR)
        return proceed(env, connection, request_id, settled, now_signed_in, client_address(request))

    return to_response(env, request, await env.database.run(work))
