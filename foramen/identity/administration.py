"""What administrators do with accounts; every step is asked of the policy (`policies/administration.rego`).

An account of another institution is answered like one that does not exist. Changes and their audit events are one
transaction; a refusal rolls it back, so the edge records it in another one (`record_refusal`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from foramen.identity import accounts
from foramen.identity.accounts import Account
from foramen.identity.audit_outbox import record
from foramen.identity.institutions import known_institution
from foramen.identity.permissions import GRANT, WITHDRAW, Rights, change_permission, current_changes
from foramen.identity.policy import evaluate
from foramen.identity.security_event import REFUSED, SUCCESS, SecurityEvent
from foramen.kernel.errors import ConflictError, ForbiddenError, NotFoundError

MANAGE_ACCOUNTS, GRANT_PERMISSIONS = "manage-accounts", "grant-permissions"


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


def _require(
    connection: Connection, administrator: Account, needs: str, target: Account, permission: str | None = None
) -> None:
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
    password: str,
) -> Account:
    """Create an account; an existing one is left as it is.

    Raises
    ------
    ForbiddenError, NotFoundError
        The policy refuses.
    ConflictError
        There is an account of that name.
    InvalidRequestError
        Name, role, institution, reference or password cannot be accepted.
    """
    _require(connection, administrator, MANAGE_ACCOUNTS, wanted)
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
    )
    _note(connection, administrator, made, f"created as {made.role}")
    return made


def disable_account(connection: Connection, administrator: Account, name: str) -> None:
    """Disable an account; its sessions and tokens end, and what it lends.

    Raises
    ------
    ForbiddenError, NotFoundError
        The policy refuses, or there is no such account.
    """
    target = accounts.require_account(connection, name)
    _require(connection, administrator, MANAGE_ACCOUNTS, target)
    accounts.disable_account(connection, name)
    _note(connection, administrator, target, "disabled")


def enable_account(connection: Connection, administrator: Account, name: str) -> None:
    """Let a disabled account act again.

    Raises
    ------
    ForbiddenError, NotFoundError
        The policy refuses, or there is no such account.
    """
    target = accounts.require_account(connection, name)
    _require(connection, administrator, MANAGE_ACCOUNTS, target)
    accounts.enable_account(connection, name)
    _note(connection, administrator, target, "enabled")


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
    _require(connection, administrator, GRANT_PERMISSIONS, target, permission if effect == GRANT else None)
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


def _note(connection: Connection, administrator: Account, target: Account, reason: str) -> None:
    event = SecurityEvent("account", SUCCESS, account=administrator.name, concerns=target.name, reason=reason)
    record(connection, event)
