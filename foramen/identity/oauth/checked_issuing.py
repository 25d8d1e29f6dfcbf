"""Issuing a code, and tokens for a code, by two statements each: what was read without a hold is checked when written.

The reading tells the version (`xmin`) of the account's row and of the session's. Whatever ends a session deletes its
row; whatever narrows the rights of an account makes another version of its row (`permissions.lock_account`, or the
change itself). The writing holds both rows, as `first_reading` does, and writes nothing where one is another by now:
it waits for what is under way, and what comes after it waits for it and finds what was issued (ADR 0046).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Insert,
    Subquery,
    Table,
    and_,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    true,
    update,
)

from foramen.identity import tables
from foramen.identity.oauth.clients import CLIENT_COLUMNS
from foramen.identity.oauth.first_reading import AUTHORIZATION, CLIENT, EXCHANGE, ONE
from foramen.identity.oauth.token_families import CODE_COLUMNS, FAMILY_COLUMNS, ISSUED, START
from foramen.identity.people.accounts import ACCOUNT_COLUMNS
from foramen.identity.people.sessions import SESSION_COLUMNS, live_sessions, locked
from foramen.identity.rights.permissions import RIGHTS, single_rights
from foramen.identity.two_statements import Ready, TwoStatements

_GUARDS = ("guard_session", "guard_session_version", "guard_account_version")
_ACCOUNT, _SESSION = tables.account, tables.session
_CODE, _FAMILY = tables.authorization_code, tables.token_family


def _version(table: Table) -> ColumnElement[int]:
    return literal_column(f"{table.fullname}.xmin::text::bigint", BigInteger)


def _rights(account: str) -> ColumnElement[Any]:
    """Return the single permissions and loans of an account of the query around it, as JSON."""
    one: Subquery = single_rights(literal_column(account)).subquery("single")
    listed = func.jsonb_build_array(one.c.permission, one.c.effect, one.c.until, one.c.lender)
    return select(func.jsonb_agg(listed)).select_from(one).scalar_subquery()


_LIVE = live_sessions().add_columns(
    _version(_SESSION).label("session_version"), _version(_ACCOUNT).label("account_version")
)
_WHO = _LIVE.subquery("who")
_OPENING = select(
    *CLIENT_COLUMNS,
    *[column for column in _WHO.c if not column.name.endswith("_version")],
    _rights("who.name"),
    *(_WHO.c.session_digest.label("guard"), _WHO.c.session_version, _WHO.c.account_version),
).select_from(ONE.outerjoin(tables.client, CLIENT).outerjoin(_WHO, true()))

_BEHIND_CODE = select(
    *CLIENT_COLUMNS,
    *CODE_COLUMNS,
    *(column.label(f"of_{column.name}") for column in FAMILY_COLUMNS),
    *(column.label(f"by_{column.name}") for column in ACCOUNT_COLUMNS),
    *SESSION_COLUMNS[: len(SESSION_COLUMNS) - len(ACCOUNT_COLUMNS)],
    _rights(f"{_ACCOUNT.fullname}.name"),
    *(_SESSION.c.session_digest.label("guard"), _version(_SESSION), _version(_ACCOUNT)),
).select_from(
    ONE.outerjoin(tables.client, CLIENT)
    .outerjoin(
        _CODE.join(_FAMILY, and_(_FAMILY.c.family == _CODE.c.family, _FAMILY.c.revoked_at.is_(None))),
        _CODE.c.code_digest == bindparam("code"),
    )
    .outerjoin(_ACCOUNT, and_(_ACCOUNT.c.name == _FAMILY.c.account, _ACCOUNT.c.disabled.is_(False)))
    .outerjoin(
        _SESSION,
        and_(
            _SESSION.c.session_digest == _FAMILY.c.session_digest,
            _SESSION.c.account == _ACCOUNT.c.name,
            _SESSION.c.expires_at > bindparam("now"),
            _SESSION.c.last_seen_at > bindparam("idle_since"),
        ),
    )
)

_HELD = locked(
    select(literal(1).label("one"))
    .join_from(_SESSION, _ACCOUNT, _ACCOUNT.c.name == _SESSION.c.account)
    .where(
        _SESSION.c.session_digest == bindparam("guard_session"),
        _version(_SESSION) == bindparam("guard_session_version"),
        _version(_ACCOUNT) == bindparam("guard_account_version"),
    )
).cte("held")


def _given(table: Table, names: dict[str, str]) -> list[Any]:
    """Return parameters for columns: parameter name → column name."""
    return [bindparam(name, type_=table.c[column].type) for name, column in names.items()]


def _start_checked() -> Insert:
    """`token_families.START`, where the rows that were read are the same."""
    names = {f"of_{column.name}": column.name for column in (*FAMILY_COLUMNS, _FAMILY.c.expires_at)}
    started = (
        _FAMILY.insert()
        .from_select(list(names.values()), select(*_given(_FAMILY, names)).select_from(_HELD))
        .returning(_FAMILY.c.family)
        .cte("started")
    )
    names = {column.name: column.name for column in _CODE.c if column.name not in ("family", "used_at")}
    wanted = select(*_given(_CODE, names), started.c.family)
    return _CODE.insert().from_select([*names.values(), "family"], wanted).returning(_CODE.c.code_digest)


def _issue_checked() -> Insert:
    """`token_families.ISSUED` for a code, where the rows that were read are the same and the code was not used."""
    used = (
        update(_CODE)
        .where(_CODE.c.code_digest == bindparam("used_code"), _CODE.c.used_at.is_(None), _HELD.c.one == literal(1))
        .values(used_at=bindparam("moment"))
        .returning(_CODE.c.family)
        .cte("used")
    )
    refresh, issued, outbox = tables.refresh_token, tables.access_token, tables.audit_outbox
    following = bindparam("following", type_=refresh.c.token_digest.type)
    until = bindparam("until", type_=refresh.c.expires_at.type)
    given = refresh.insert().from_select(
        ["token_digest", "family", "expires_at"], select(following, used.c.family, until).where(following.is_not(None))
    )
    prolonged = (
        update(_FAMILY).where(_FAMILY.c.family == used.c.family, following.is_not(None)).values(expires_at=until)
    )
    told = outbox.insert().from_select(
        ["event", "attempts", "next_attempt_at"],
        select(
            bindparam("said", type_=outbox.c.event.type),
            literal_column("0"),
            bindparam("moment", type_=outbox.c.next_attempt_at.type),
        ).select_from(used),
    )
    names = {"issued": "jti", "token_until": "expires_at"}
    token = issued.insert().from_select([*names.values(), "family"], select(*_given(issued, names), used.c.family))
    return token.add_cte(prolonged.cte("prolonged"), given.cte("next"), told.cte("told")).returning(issued.c.jti)


AUTHORIZE = TwoStatements(AUTHORIZATION, Ready(_OPENING), RIGHTS, START, Ready(_start_checked()), _GUARDS)
"""A code for who is signed in."""
TAKE_CODE = TwoStatements(EXCHANGE, Ready(_BEHIND_CODE), RIGHTS, ISSUED, Ready(_issue_checked()), _GUARDS)
"""Tokens for a code that lives with its session."""
