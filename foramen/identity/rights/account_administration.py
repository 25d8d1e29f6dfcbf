"""What administrators change in an account beside creating and disabling it: lock, second factor, role and links.

Each is one transaction with its audit event, asked of the policy (`administration.require`).
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection, update

from foramen.identity import tables
from foramen.identity.people import accounts
from foramen.identity.people.accounts import Account
from foramen.identity.people.second_factor import reset_second_factor
from foramen.identity.rights.administration import (
    MANAGE_ACCOUNTS,
    Belongings,
    links_of,
    locked_account,
    note,
    require,
)
from foramen.identity.rights.delegations import end_loans
from foramen.identity.rights.institutions import known_institution
from foramen.identity.rights.permissions import end_exceeding
from foramen.identity.rights.roles import PATIENT, ROLES
from foramen.kernel.errors import ConflictError, InvalidRequestError


def unlock(connection: Connection, administrator: Account, name: str) -> None:
    """End the lock that failed passwords or codes have put on an account.

    Raises
    ------
    ForbiddenError, NotFoundError
        The policy refuses, or there is no such account.
    """
    target = locked_account(connection, name)
    require(connection, administrator, MANAGE_ACCOUNTS, target)
    accounts.unlock_account(connection, name)
    note(connection, administrator, target, "unlocked")


def reset_factors(connection: Connection, administrator: Account, name: str, reason: str) -> None:
    """Remove all second factors and recovery codes of an account and end its access: for a lost or stolen device.

    Raises
    ------
    ForbiddenError, NotFoundError
        The policy refuses, or there is no such account.
    """
    target = locked_account(connection, name)
    require(connection, administrator, MANAGE_ACCOUNTS, target)
    reset_second_factor(connection, name)
    note(connection, administrator, target, f"reset: {reason}", "second-factor")


def change_account(
    connection: Connection, administrator: Account, wanted: Account, *, belongings: Belongings | None = None
) -> Account:
    """Change role, institution and links of an account; its access ends, as what it may do has changed.

    Who gets another role signs in again, with the factors that role needs. Single permissions out of reach of the new
    role count no more; they are not removed. Whom an account stands for is said once: what the former holder knows and
    owns (password, factors, consents) must not pass to another person, who gets an account of their own. Who goes to
    another institution lends and borrows no more.

    Parameters
    ----------
    wanted : the account as it shall be; `name` says which, `disabled` is not looked at
    belongings : of the persons it shall newly stand for; who is missing there belongs to no institution

    Raises
    ------
    ForbiddenError, NotFoundError
        The policy refuses the account as it is or as it shall be, or there is none.
    InvalidRequestError
        Role, institution or reference cannot be accepted.
    ConflictError
        The account stands for another Practitioner or Patient.
    """
    now = locked_account(connection, wanted.name)
    require(connection, administrator, MANAGE_ACCOUNTS, now)
    shall = replace(wanted, disabled=now.disabled)
    new = [link for link in links_of(shall) if link not in links_of(now)]
    require(connection, administrator, MANAGE_ACCOUNTS, shall, links=[(belongings or {}).get(link, ()) for link in new])
    if shall == now:
        return now
    if shall.role not in ROLES:
        raise InvalidRequestError(f"A role is one of {', '.join(ROLES)}")
    if shall.role == PATIENT and not shall.patient:
        raise InvalidRequestError("An account of role patient needs its Patient")
    if any(getattr(now, link) not in (None, getattr(shall, link)) for link in ("practitioner", "patient")):
        raise ConflictError("The account stands for somebody else: create another one")
    values = {
        "role": shall.role,
        "practitioner": accounts.logical_id(shall.practitioner, "Practitioner"),
        "patient": accounts.logical_id(shall.patient, "Patient"),
        "institution": known_institution(connection, shall.institution),
    }
    connection.execute(update(tables.account).where(tables.account.c.name == now.name).values(**values))
    accounts.end_access(connection, now.name)
    if values["institution"] != now.institution:
        end_loans(connection, now.name, administrator.name)
    end_exceeding(connection, now.name)  # those who borrow from it
    note(connection, administrator, shall, ", ".join([*_difference(now, shall), *new]))
    return accounts.require_account(connection, now.name)


def _difference(old: Account, new: Account) -> list[str]:
    """Say what changed, for the audit: roles and institutions by name."""
    return [
        f"{part} {getattr(old, part) or 'none'} to {getattr(new, part) or 'none'}"
        for part in ("role", "institution")
        if getattr(old, part) != getattr(new, part)
    ]
