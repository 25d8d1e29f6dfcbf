"""How a sign-in through a provider ends: a session, a second factor of ours first, or a refusal that says why.

NIST SP 800-63C §5; which factors a provider vouches for: `outside_identity.factors_of`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection
from starlette.requests import Request

from foramen.identity.bounded_audit import record_refusal
from foramen.identity.cookies import SIGN_IN as PARTIAL
from foramen.identity.cookies import read_cookie
from foramen.identity.database import utc_now
from foramen.identity.endpoints.sign_in_steps import complete
from foramen.identity.environment import Environment
from foramen.identity.federation import outside_sessions
from foramen.identity.federation.linking import NotHere, account_of, hold
from foramen.identity.federation.outside_identity import OutsideIdentity, factors_of
from foramen.identity.federation.providers import Provider, find_provider
from foramen.identity.federation.requests import Pending
from foramen.identity.parameters import client_address
from foramen.identity.people.accounts import Account
from foramen.identity.people.partial_sign_in import LIFETIME, begin_partial, end_partial
from foramen.identity.people.second_factor import enrolled, second_factor_roles
from foramen.identity.people.sessions import two_factors
from foramen.identity.security_event import FAILED, SIGN_IN, SecurityEvent


@dataclass(frozen=True, slots=True)
class Settled:
    """One of a session, a sign-in that needs a second factor of ours, and a refusal (a word of the texts)."""

    session: str = ""
    partial: str = ""
    next_page: str = ""
    refused: str = ""


def is_fresh(provider: Provider, found: OutsideIdentity, pending: Pending) -> bool:
    """Whether the person proved who they are after they left here, where that was asked for."""
    skew = timedelta(seconds=provider.settings.clock_skew_s)
    return not pending.fresh or (
        found.authenticated_at is not None and found.authenticated_at >= pending.created_at - skew
    )


def settle(
    env: Environment,
    connection: Connection,
    request: Request,
    provider: Provider,
    found: OutsideIdentity,
    pending: Pending,
) -> Settled:
    """Decide, in one transaction with what it changes and its audit."""
    now, address = utc_now(), client_address(request)
    hold(connection, found.issuer, found.subject)

    def refuse(reason: str, account: str | None = None) -> Settled:
        said = f"{provider.id}: {reason.replace('_', ' ')}"
        record_refusal(connection, SecurityEvent(SIGN_IN, FAILED, account=account, address=address, reason=said))
        return Settled(refused=reason)

    if find_provider(connection, provider.id) is None:
        return refuse("expired")
    if outside_sessions.ended_meanwhile(connection, found):
        return refuse("ended")
    if not is_fresh(provider, found, pending):
        return refuse("not_fresh")
    account = account_of(connection, provider, found, now, address)
    if isinstance(account, NotHere):
        return refuse(account.reason, account.account)
    return _begin(env, connection, request, provider, found, account)


def _begin(
    env: Environment,
    connection: Connection,
    request: Request,
    provider: Provider,
    found: OutsideIdentity,
    account: Account,
) -> Settled:
    now, keys = utc_now(), env.data_keys
    factors = factors_of(provider.settings, found.claims)
    have = enrolled(connection, account.name).number
    outside_sessions.forget(connection, read_cookie(env, request, PARTIAL))
    if two_factors(factors) or not (have or account.role in second_factor_roles(env.settings)):
        cookie = complete(env, connection, request, account, factors)
        until = now + timedelta(seconds=env.settings.session_absolute_s)
        outside_sessions.note(connection, keys, provider, found, account.name, cookie, factors, until)
        outside_sessions.settle_time(connection, cookie)
        return Settled(session=cookie)
    end_partial(connection, read_cookie(env, request, PARTIAL))
    partial = begin_partial(connection, account.name, now)
    outside_sessions.note(connection, keys, provider, found, account.name, partial, factors, now + LIFETIME)
    return Settled(partial=partial, next_page="second-factor" if have else "enrol")
