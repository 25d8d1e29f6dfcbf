"""What administrators may do; creating and disabling accounts; asked of the policy (`policies/administration.rego`).

An account of another institution is answered like one that does not exist. Changes and their audit events are one
transaction; a refusal rolls it back, so the edge records it in another one (`record_refusal`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, false, true, update
from sqlalchemy.dialects.postgresql import insert

from foramen.identity import tables
from foramen.identity.audit_outbox import record
from foramen.identity.database import utc_now
from foramen.identity.oauth.clients import check_account_name
from foramen.identity.people import accounts
from foramen.identity.people.accounts import Account
from foramen.identity.policy import evaluate
from foramen.identity.rights.institutions import known_institution
from foramen.identity.rights.permissions import (
    GRANT,
    WITHDRAW,
    Rights,
    change_permission,
    current_changes,
    lock_account,
)
from foramen.identity.security_event import REFUSED, SUCCESS, SecurityEvent
from foramen.kernel.errors import ConflictError, ForbiddenError, NotFoundError

MANAGE_ACCOUNTS, GRANT_PERMISSIONS = "manage-accounts", "grant-permissions"
MANAGE_INSTITUTIONS = "manage-institutions"
PASSWORD_LINK = "password-link"  # noqa: S105  the word of its audit events
Belongings = Mapping[str, Collection[str]]
"""To which institutions a person (``Practitioner/ID``, ``Patient/ID``) belongs, as the record says now."""
_ANYBODY = "physician"


@dataclass(frozen=True, slots=True)
class Reach:
    """Whose accounts an administrator sees: everybody's, those of one institution, or nobody's."""

    everywhere: bool
    institution: str | None = None

    def condition(self, institution: ColumnElement[Any]) -> ColumnElement[bool]:
        """Bound a query before paging; `institution` is the column of the institution of the account listed."""
        if self.everywhere:
            return true()
        return institution == self.institution if self.institution else false()

    def covers(self, institution: str | None) -> bool:
        """Whether an institution's accounts are within reach."""
        return self.everywhere or (self.institution is not None and institution == self.institution)


def decide(
    connection: Connection,
    administrator: Account,
    needs: str,
    target: Account,
    permission: str | None = None,
    *,
    links: Sequence[Collection[str]] = (),
) -> list[str]:
    """Return the rules that refuse; empty: the administrator may do this to the account.

    Parameters
    ----------
    needs : permission that is asked for: `MANAGE_ACCOUNTS` or `GRANT_PERMISSIONS`
    target : the account acted on, as it is or as it shall be
    permission : the one to grant
    links : for each person the account would newly stand for, the institutions that person belongs to
    """
    changes = current_changes(connection, administrator.name)
    question: dict[str, Any] = {
        "name": administrator.name,
        "role": administrator.role,
        "institution": administrator.institution,
        "granted": sorted(change.permission for change in changes if change.effect == GRANT),
        "lent": [],  # What administrators may do is not lent.
        "withdrawn": sorted(change.permission for change in changes if change.effect == WITHDRAW),
        "needs": needs,
        "target": {
            "name": target.name,
            "role": target.role,
            "institution": target.institution,
            "permission": permission,
            "granted": sorted(
                change.permission for change in current_changes(connection, target.name) if change.effect == GRANT
            ),
            "links": [sorted(institutions) for institutions in links],
        },
    }
    answer = evaluate("administration.answer", question)
    return [] if answer["allow"] else [rule["rule"] for rule in answer["rules"] if not rule["holds"]]


def reach(connection: Connection, administrator: Account, needs: str) -> Reach:
    """Return whose accounts an administrator sees who has a permission; the policy is asked with probes.

    Raises
    ------
    ForbiddenError
        The account has not the permission.
    """
    nowhere = decide(connection, administrator, needs, Account("", _ANYBODY))
    if "permission" in nowhere:
        raise ForbiddenError(f"This needs the permission {needs}")
    if "institution" not in nowhere:
        return Reach(everywhere=True)
    inside = Account("", _ANYBODY, institution=administrator.institution)
    within = "institution" not in decide(connection, administrator, needs, inside)
    return Reach(everywhere=False, institution=administrator.institution if within else None)


def visible_account(connection: Connection, administrator: Account, needs: str, name: str) -> Account:
    """Return an account that an administrator may see, also a disabled one and the own.

    Raises
    ------
    ForbiddenError
        The administrator has not the permission.
    NotFoundError
        There is no such account, or it is another institution's.
    """
    within = reach(connection, administrator, needs)
    found = accounts.any_account(connection, name)
    if found is None or not within.covers(found.institution):
        raise NotFoundError("There is no such account")
    return found


def require(
    connection: Connection,
    administrator: Account,
    needs: str,
    target: Account,
    permission: str | None = None,
    *,
    links: Sequence[Collection[str]] = (),
) -> None:
    """Refuse what the policy refuses; another institution's account is answered like none.

    Parameters are those of `decide`.

    Raises
    ------
    ForbiddenError, NotFoundError
        See above.
    """
    refused = decide(connection, administrator, needs, target, permission, links=links)
    if "permission" in refused:
        raise ForbiddenError(f"This needs the permission {needs}")
    if "institution" in refused:
        raise NotFoundError("There is no such account")
    if refused == ["link"]:
        raise ForbiddenError("An account stands for a person of your institution only, as the record says")
    if refused:
        raise ForbiddenError(f"The policy refuses: {', '.join(refused)}")


def list_accounts(connection: Connection, administrator: Account) -> list[Account]:
    """Return the accounts an administrator may manage, and the own one.

    Raises
    ------
    ForbiddenError
        The account is no administrator.
    """
    probe = Account("", "physician", institution=administrator.institution)
    if "permission" in decide(connection, administrator, MANAGE_ACCOUNTS, probe):
        raise ForbiddenError(f"This needs the permission {MANAGE_ACCOUNTS}")
    return [
        account
        for account in accounts.list_accounts(connection)
        if "institution" not in decide(connection, administrator, MANAGE_ACCOUNTS, account)
    ]


def locked_account(connection: Connection, name: str) -> Account:
    """Return an account, also a disabled one, as it stays until this transaction ends: so it is judged, so changed.

    Raises
    ------
    NotFoundError
        There is no such account.
    """
    lock_account(connection, name)
    return accounts.require_account(connection, name)


def links_of(account: Account) -> list[str]:
    """Return the persons of the record that an account stands for: ``Practitioner/ID``, ``Patient/ID``."""
    links = (
        ("Practitioner", accounts.logical_id(account.practitioner, "Practitioner")),
        ("Patient", accounts.logical_id(account.patient, "Patient")),
    )
    return [f"{kind}/{logical_id}" for kind, logical_id in links if logical_id]


def create_account(
    connection: Connection,
    administrator: Account,
    wanted: Account,
    password: str = "",
    *,
    password_hash: str | None = None,
    belongings: Belongings | None = None,
) -> Account:
    """Create an account; an existing one is left as it is.

    Parameters
    ----------
    belongings : of the persons it shall stand for; who is missing there belongs to no institution
    password : checked by the policy of passwords and hashed
    password_hash : made before, in place of a password

    Raises
    ------
    ForbiddenError, NotFoundError
        The policy refuses.
    ConflictError
        There is an account or a client of that name.
    InvalidRequestError
        Name, role, institution, reference or password cannot be accepted.
    """
    links = links_of(wanted)
    found = [(belongings or {}).get(link, ()) for link in links]
    require(connection, administrator, MANAGE_ACCOUNTS, wanted, links=found)
    _take_name(connection, administrator, wanted)
    made = accounts.save_account(
        connection,
        wanted.name,
        password,
        wanted.role,
        practitioner=wanted.practitioner,
        patient=wanted.patient,
        institution=wanted.institution,
        password_hash=password_hash,
    )
    note(connection, administrator, made, ", ".join([f"created as {made.role}", *links]))
    return made


def _take_name(connection: Connection, administrator: Account, wanted: Account) -> None:
    """Make the row that is filled next; of two who create the same account at once, one finds the name taken."""
    check_account_name(connection, wanted.name)
    row = {
        "name": wanted.name,
        "password_hash": "",  # no password fits; the next statement of this transaction puts one there
        "role": wanted.role,
        "practitioner": accounts.logical_id(wanted.practitioner, "Practitioner"),
        "patient": accounts.logical_id(wanted.patient, "Patient"),
        "institution": known_institution(connection, wanted.institution),
        "disabled": False,
        "created_at": utc_now(),
        "created_by": administrator.name,
        **dict.fromkeys(("failed_attempts", "code_failures", "locks", "code_locks"), 0),
    }
    taken = insert(tables.account).values(**row).on_conflict_do_nothing().returning(tables.account.c.name)
    if connection.execute(taken).one_or_none() is None:
        raise ConflictError("There is an account of this name")


def disable_account(connection: Connection, administrator: Account, name: str) -> None:
    """Disable an account; its sessions and tokens end, and what it lends.

    Raises
    ------
    ForbiddenError, NotFoundError
        The policy refuses, or there is no such account.
    """
    target = locked_account(connection, name)
    require(connection, administrator, MANAGE_ACCOUNTS, target)
    accounts.disable_account(connection, name)
    note(connection, administrator, target, "disabled")


def enable_account(connection: Connection, administrator: Account, name: str) -> None:
    """Let a disabled account act again.

    Raises
    ------
    ForbiddenError, NotFoundError
        The policy refuses, or there is no such account.
    """
    target = locked_account(connection, name)
    require(connection, administrator, MANAGE_ACCOUNTS, target)
    accounts.enable_account(connection, name)
    note(connection, administrator, target, "enabled")


def change(
    connection: Connection,
    administrator: Account,
    name: str,
    permission: str,
    effect: str,
    *,
    reason: str,
    until: datetime | None = None,
) -> Rights:
    """Grant or withdraw one permission (`permissions.GRANT`, `permissions.WITHDRAW`).

    Raises
    ------
    ForbiddenError, NotFoundError, InvalidRequestError
        The policy refuses, there is no such account or permission, or the reason or time is none.
    """
    target = locked_account(connection, name)
    require(connection, administrator, GRANT_PERMISSIONS, target, permission if effect == GRANT else None)
    return change_permission(
        connection, target, permission, effect, reason=reason, decided_by=administrator.name, until=until
    )


def record_refusal(connection: Connection, administrator: Account, needs: str, name: str) -> None:
    """Leave an audit event of something refused; `name` is repeated only when it is an account."""
    known = accounts.any_account(connection, name)
    event = SecurityEvent(
        "account", REFUSED, account=administrator.name, concerns=known.name if known else None, reason=needs
    )
    record(connection, event)


def note(connection: Connection, administrator: Account, target: Account, reason: str, what: str = "account") -> None:
    """Leave the audit event of what an administrator did to an account.

    Who made its last password link is kept with the account: the review of emergency access asks for it.
    """
    if what == PASSWORD_LINK:
        name = tables.account.c.name
        connection.execute(update(tables.account).where(name == target.name).values(link_made_by=administrator.name))
    event = SecurityEvent(what, SUCCESS, account=administrator.name, concerns=target.name, reason=reason)
    record(connection, event)
