"""`/auth/userinfo`: who signed in, for tokens with scope openid.

https://openid.net/specs/openid-connect-core-1_0.html#UserInfo
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from foramen.identity.endpoints.token import NO_STORE
from foramen.identity.environment import Environment
from foramen.identity.people.accounts import find_account
from foramen.kernel.errors import ForbiddenError, NotAuthenticatedError
from foramen.kernel.http_edge import authenticate


async def userinfo(env: Environment, request: Request) -> Response:
    """Answer with the claims the scopes allow."""
    context = authenticate(request, env.verifier)
    if not context.has_scope("openid"):
        header = 'Bearer realm="foramen", error="insufficient_scope", scope="openid"'
        raise ForbiddenError("The token has no scope openid", headers={"WWW-Authenticate": header})
    account = await env.database.run(lambda connection: find_account(connection, context.subject))
    if account is None:
        raise NotAuthenticatedError(
            "The account is not active", headers={"WWW-Authenticate": 'Bearer realm="foramen", error="invalid_token"'}
        )
    claims = {"sub": account.name}
    if context.has_scope("fhirUser") and account.fhir_user:
        claims["fhirUser"] = f"{env.settings.fhir_base}/{account.fhir_user}"
    if context.has_scope("profile"):
        claims["preferred_username"] = account.name
    return JSONResponse(claims, headers=NO_STORE)
