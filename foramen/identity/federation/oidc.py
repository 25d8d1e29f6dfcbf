"""OpenID Connect as a relying party: code flow with PKCE, id_token, userinfo, logout.

https://openid.net/specs/openid-connect-core-1_0.html §3.1; RFC 7636; RFC 9207; RFC 9700
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus, urlencode

import httpx
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from foramen.identity.federation.documents import Metadata, OutsideDocuments
from foramen.identity.federation.outgoing import call, reach_of
from foramen.identity.federation.outside_identity import OutsideIdentity, OutsideRefused, values_of
from foramen.identity.federation.provider_settings import ProviderSettings
from foramen.identity.federation.providers import Provider

_MAX_TOKEN = 64 * 1024
_LONGEST_SUBJECT = 255
_ERROR_WORDS = ("access_denied", "login_required", "interaction_required", "consent_required")


@dataclass(frozen=True, slots=True)
class Journey:
    """The secrets of one browser's way to the provider and back."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    fresh: bool = False


def authorization_url(
    provider: Provider, metadata: Metadata, journey: Journey, *, max_age_s: int, ui_locales: str
) -> str:
    """Return where the browser goes to sign in out there.

    `max_age` is always asked for, as it obliges the provider to say when the person proved who they are (§3.1.2.1).
    """
    challenge = base64.urlsafe_b64encode(hashlib.sha256(journey.verifier.encode()).digest()).rstrip(b"=").decode()
    parameters = {
        "response_type": "code",
        "client_id": provider.client_id or "",
        "redirect_uri": journey.redirect_uri,
        "scope": provider.settings.scope,
        "state": journey.state,
        "nonce": journey.nonce,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "max_age": str(max_age_s),
        "ui_locales": ui_locales,
    }
    if provider.settings.acr_values:
        parameters["acr_values"] = provider.settings.acr_values
    if journey.fresh:
        parameters["prompt"] = "login"
    return with_query(metadata.authorization_endpoint, parameters)


def with_query(url: str, parameters: dict[str, str]) -> str:
    """Append parameters to an address that may have some."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters)}"


def check_response(metadata: Metadata, parameters: dict[str, str]) -> str:
    """Return the code of an authorization response.

    Raises
    ------
    OutsideRefused
        It comes from another issuer (RFC 9207 §2.4), or says no.
    """
    issuer = parameters.get("iss")
    if issuer is not None and issuer != metadata.issuer:
        raise OutsideRefused("another issuer answered")
    if issuer is None and metadata.names_itself:
        raise OutsideRefused("the issuer is not named")
    if "error" in parameters:
        word = parameters["error"] if parameters["error"] in _ERROR_WORDS else "error"
        raise OutsideRefused(f"provider: {word}", denied=True)
    if not parameters.get("code"):
        raise OutsideRefused("no code")
    return parameters["code"]


async def redeem(
    documents: OutsideDocuments, provider: Provider, secret: str | None, code: str, journey: Journey
) -> OutsideIdentity:
    """Exchange a code and verify what comes back.

    Raises
    ------
    OutsideRefused
        The code is not accepted, or the answer cannot be believed.
    UpstreamError
        The provider does not answer.
    """
    metadata = await documents.metadata(provider)
    tokens = await _exchange(provider, metadata, secret, code, journey)
    id_token, access_token = tokens.get("id_token"), tokens.get("access_token")
    if not isinstance(id_token, str) or not isinstance(access_token, str):
        raise OutsideRefused("no id_token")
    keys = await documents.keys(provider, header_kid(id_token))
    found = verify_id_token(provider, keys, id_token, nonce=journey.nonce, access_token=access_token)
    if _incomplete(provider.settings, found.claims) and metadata.userinfo_endpoint:
        more = await _userinfo(provider, metadata.userinfo_endpoint, access_token, found.subject)
        # What was signed stands: userinfo only adds (§5.3.2).
        found = replace(found, claims={**more, **found.claims})
    return found


async def _exchange(
    provider: Provider, metadata: Metadata, secret: str | None, code: str, journey: Journey
) -> dict[str, Any]:
    client_id, auth = provider.client_id or "", None
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": journey.redirect_uri,
        "code_verifier": journey.verifier,
    }
    if secret is not None and provider.settings.token_auth == "client_secret_basic":  # noqa: S105  RFC 6749 §2.3.1
        auth = httpx.BasicAuth(quote_plus(client_id), quote_plus(secret))
    else:
        form |= {"client_id": client_id, **({"client_secret": secret} if secret is not None else {})}
    response = await call(reach_of(provider), "POST", metadata.token_endpoint, form=form, auth=auth)
    tokens = _json(response)
    if response.status_code != 200 or str(tokens.get("token_type", "")).lower() != "bearer":
        raise OutsideRefused("the code was not accepted")
    return tokens


async def _userinfo(provider: Provider, url: str, access_token: str, subject: str) -> dict[str, Any]:
    response = await call(reach_of(provider), "GET", url, bearer=access_token)
    claims = _json(response)
    if response.status_code != 200 or claims.get("sub") != subject:  # §5.3.4: else it is somebody else's
        raise OutsideRefused("userinfo is not the subject's")
    return claims


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        found = json.loads(response.content)
    except (ValueError, RecursionError) as exc:
        raise OutsideRefused("the provider's answer is not JSON") from exc
    if not isinstance(found, dict):
        raise OutsideRefused("the provider's answer is not JSON")
    return found


def _incomplete(settings: ProviderSettings, claims: dict[str, Any]) -> bool:
    wanted = {settings.institution_claim, settings.practitioner_claim, settings.name_claim}
    if settings.roles:
        wanted.add(settings.groups_claim)
    return any(name is not None and not values_of(claims, name) for name in wanted)


def header_kid(token: str) -> str | None:
    """Return the key id that a token names, believing nothing."""
    try:
        part = token.split(".", 1)[0]
        header = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError) as exc:
        raise OutsideRefused("the token cannot be read") from exc
    kid = header.get("kid") if isinstance(header, dict) else None
    return kid if isinstance(kid, str) else None


def verified_claims(provider: Provider, keys: KeySet, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a token that one of the provider's keys signed with an algorithm that is allowed.

    Raises
    ------
    OutsideRefused
        It is not.
    """
    if len(token) > _MAX_TOKEN:
        raise OutsideRefused("the token is too large")
    try:
        found = jwt.decode(token, keys, algorithms=list(provider.settings.algorithms))
    except (JoseError, ValueError, RecursionError) as exc:
        raise OutsideRefused("the signature is not the provider's") from exc
    return dict(found.header), dict(found.claims)


def verify_id_token(
    provider: Provider, keys: KeySet, id_token: str, *, nonce: str, access_token: str | None = None
) -> OutsideIdentity:
    """Verify an id_token (§3.1.3.7).

    Raises
    ------
    OutsideRefused
        Signature, algorithm, issuer, audience, authorized party, times, nonce or hash are not right.
    """
    header, claims = verified_claims(provider, keys, id_token)
    options = {
        "iss": {"essential": True, "value": provider.issuer},
        "aud": {"essential": True, "value": provider.client_id},
        "sub": {"essential": True},
        "nonce": {"essential": True, "value": nonce},
    }
    params = {"nonce": nonce, "client_id": provider.client_id, "access_token": access_token}
    now = time.time()
    try:
        CodeIDToken(claims, header, options, params).validate(now=int(now), leeway=provider.settings.clock_skew_s)
    except (JoseError, ValueError, TypeError) as exc:
        raise OutsideRefused(f"id_token: {_claim_of(exc)}") from exc
    _check_shape(claims)
    listed = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    if len(listed) > 1 and claims.get("azp") != provider.client_id:
        raise OutsideRefused("id_token: azp")
    sid = claims.get("sid")
    return OutsideIdentity(
        issuer=provider.issuer,
        subject=claims["sub"],
        claims=claims,
        issued_at=_moment(claims["iat"]),
        sid=sid if isinstance(sid, str) and sid else None,
        authenticated_at=_moment(claims["auth_time"]) if "auth_time" in claims else None,
        id_token=id_token,
    )


def _claim_of(error: Exception) -> str:
    """Name the claim that was not right; never its value."""
    name = getattr(error, "claim", None)
    return name if isinstance(name, str) and name.isidentifier() else "claims"


def _check_shape(claims: dict[str, Any]) -> None:
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
        raise OutsideRefused("id_token: sub")
    for name in ("iat", "exp", "auth_time"):
        value = claims.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**40:
            raise OutsideRefused(f"id_token: {name}")


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
