"""Institutions as administrators see them: all of them, or the own one; adding and renaming with an audit event."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from foramen.identity import tables
from foramen.identity.audit_outbox import record
from foramen.identity.people.accounts import Account
from foramen.identity.rights.administration import MANAGE_ACCOUNTS, MANAGE_INSTITUTIONS, reach
from foramen.identity.rights.institutions import Institution, list_institutions, save_institution
from foramen.identity.rights.permissions import own_rights
from foramen.identity.security_event import SUCCESS, SecurityEvent
from foramen.kernel.errors import ConflictError, ForbiddenError, NotFoundError


@dataclass(frozen=True, slots=True)
class ListedInstitution:
    """An institution and how many accounts belong to it."""

    institution: Institution
    accounts: int


def visible_institutions(connection: Connection, administrator: Account) -> list[Institution]:
    """Return the institutions whose accounts an administrator may manage, by id.

    Raises
    ------
    ForbiddenError
        The account is no administrator.
    """
    within = reach(connection, administrator, MANAGE_ACCOUNTS)
    return [item for item in list_institutions(connection) if within.covers(item.id)]


def counted_institutions(connection: Connection, administrator: Account) -> list[ListedInstitution]:
    """Return them with the number of their accounts.

    Raises
    ------
    ForbiddenError
        The account is no administrator.
    """
    found = visible_institutions(connection, administrator)
    column = tables.account.c.institution
    rows = connection.execute(
        select(column, func.count()).where(column.in_([item.id for item in found])).group_by(column)
    ).all()
    numbers = {row[0]: int(row[1]) for row in rows}
    return [ListedInstitution(item, numbers.get(item.id, 0)) for item in found]


def find_institution(connection: Connection, administrator: Account, logical_id: str) -> Institution:
    """Return one of the institutions within reach.

    Raises
    ------
    NotFoundError
        There is none within reach.
    """
    for item in visible_institutions(connection, administrator):
        if item.id == logical_id:
            return item
    raise NotFoundError("There is no such institution")


def add_institution(connection: Connection, administrator: Account, institution: Institution) -> None:
    """Add an institution.

    Raises
    ------
    ForbiddenError
        The account may not manage institutions.
    ConflictError
        There is one of this id.
    InvalidRequestError
        The id or a name cannot be accepted.
    """
    _require(connection, administrator)
    if institution.id in {item.id for item in list_institutions(connection)}:
        raise ConflictError("There is an institution of this id")
    save_institution(connection, institution)
    _note(connection, administrator, institution, "added")


def rename_institution(connection: Connection, administrator: Account, institution: Institution) -> Institution:
    """Rename an institution; returns it as it was.

    Raises
    ------
    ForbiddenError
        The account may not manage institutions.
    NotFoundError
        There is none of this id.
    InvalidRequestError
        A name cannot be accepted.
    """
    _require(connection, administrator)
    before = find_institution(connection, administrator, institution.id)
    save_institution(connection, institution)
    _note(connection, administrator, institution, "renamed")
    return before


def _require(connection: Connection, administrator: Account) -> None:
    if MANAGE_INSTITUTIONS not in own_rights(connection, administrator).permissions:
        raise ForbiddenError(f"This needs the permission {MANAGE_INSTITUTIONS}")


def _note(connection: Connection, administrator: Account, institution: Institution, what: str) -> None:
    event = SecurityEvent("institution", SUCCESS, account=administrator.name, reason=f"{institution.id} {what}")
    record(connection, event)
