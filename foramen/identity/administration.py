"""What administrators may do; creating and disabling accounts; asked of the policy (`policies/administration.rego`).

An account of another institution is answered like one that does not exist. Changes and their audit events are one
transaction; a refusal rolls it back, so the edge records it in another one (`record_refusal`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, false, true

from foramen.identity import accounts
from foramen.identity.accounts import Account
from foramen.identity.audit_outbox import record
from foramen.identity.institutions import known_institution
from foramen.identity.permissions import GRANT, WITHDRAW, Rights, change_permission, current_changes
from foramen.identity.policy import evaluate
from foramen.identity.security_event import REFUSED, SUCCESS, SecurityEvent
from foramen.kernel.errors import ConflictError, ForbiddenError, NotFoundError

MANAGE_ACCOUNTS, GRANT_PERMISSIONS = "manage-accounts", "grant-permissions"
MANAGE_INSTITUTIONS = "manage-institutions"
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
    connection: Connection, administrator: Account, needs: str, target: Account, permission: str | None = None
) -> list[str]:
    """Return the rules that refuse; empty: the administrator may do this to the account.

    Parameters
    ----------
    needs : permission that is asked for: `MANAGE_ACCOUNTS` or `GRANT_PERMISSIONS`
    target : the account acted on, as it is or as it shall be
    permission : the one to grant
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
    connection: Connection, administrator: Account, needs: str, target: Account, permission: str | None = None
) -> None:
    """Refuse what the policy refuses; another institution's account is answered like none.

    Raises
    ------
    ForbiddenError, NotFoundError
        See above.
    """
    refused = decide(connection, administrator, needs, target, permission)
    if "permission" in refused:
        raise ForbiddenError(f"This needs the permission {needs}")
    if "institution" in refused:
        raise NotFoundError("There is no such account")
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


def create_account(
    connection: Connection,
    administrator: Account,
    wanted: Account,
    password: str = "",
    *,
    password_hash: str | None = None,
) -> Account:
    """Create an account; an existing one is left as it is.

    Parameters
    ----------
    password : checked by the policy of passwords and hashed
    password_hash : made before, in place of a password

    Raises
    ------
    ForbiddenError, NotFoundError
        The policy refuses.
    ConflictError
        There is an account of that name.
    InvalidRequestError
        Name, role, institution, reference or password cannot be accepted.
    """
    require(connection, administrator, MANAGE_ACCOUNTS, wanted)
    known_institution(connection, wanted.institution)
    if accounts.any_account(connection, wanted.name) is not None:
        raise ConflictError("There is an account of this name")
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
    note(connection, administrator, made, f"created as {made.role}")
    return made


def disable_account(connection: Connection, administrator: Account, name: str) -> None:
    """Disable an account; its sessions and tokens end, and what it lends.

    Raises
    ------
    ForbiddenError, NotFoundError
        The policy refuses, or there is no such account.
    """
    target = accounts.require_account(connection, name)
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
    target = accounts.require_account(connection, name)
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
    target = accounts.require_account(connection, name)
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
    """Leave the audit event of what an administrator did to an account."""
    event = SecurityEvent(what, SUCCESS, account=administrator.name, concerns=target.name, reason=reason)
    record(connection, event)
