"""`foramen user grant|withdraw|permissions|delegate|end-delegation`: what an account may do beside its role."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foramen.kernel.settings import get_settings

if TYPE_CHECKING:
    from foramen.identity.rights.permissions import Rights

OPERATOR = "foramen-cli"
_DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
Name = Annotated[str, typer.Argument(help="Account name.")]
Permission = Annotated[str, typer.Argument(help="Permission (docs/roles.md).")]
Reason = Annotated[str, typer.Option(help="Why; it stands in the audit trail: name no patient.")]
Until = Annotated[datetime | None, typer.Option(formats=_DATES, help="UTC; without it: until it is changed.")]


def grant(name: Name, permission: Permission, reason: Reason, until: Until = None) -> None:
    """Grant one permission to an account, on top of its role; it counts from the next token on."""
    from foramen.identity.rights.permissions import GRANT

    _change(name, permission, GRANT, reason, until)


def withdraw(name: Name, permission: Permission, reason: Reason, until: Until = None) -> None:
    """Withdraw one permission from an account, whether of its role or granted; tokens that hold it end."""
    from foramen.identity.rights.permissions import WITHDRAW

    _change(name, permission, WITHDRAW, reason, until)


def _change(name: str, permission: str, effect: str, reason: str, until: datetime | None) -> None:
    from foramen.identity.database import transaction
    from foramen.identity.people.accounts import require_account
    from foramen.identity.rights.permissions import change_permission
    from foramen.kernel.database_url import database_url

    with transaction(database_url(get_settings())) as connection:
        rights = change_permission(
            connection,
            require_account(connection, name),
            permission,
            effect,
            reason=reason,
            decided_by=OPERATOR,
            until=until.replace(tzinfo=UTC) if until else None,
        )
    typer.echo(json.dumps(_described(name, rights), indent=2))


def permissions(name: Name) -> None:
    """Print as JSON what an account may do now, and every grant, withdrawal and loan there was."""
    from dataclasses import asdict

    from foramen.identity.database import transaction
    from foramen.identity.people.accounts import require_account
    from foramen.identity.rights.delegations import list_delegations
    from foramen.identity.rights.permissions import all_changes, rights_of
    from foramen.kernel.database_url import database_url

    with transaction(database_url(get_settings())) as connection:
        described = _described(name, rights_of(connection, require_account(connection, name)))
        described["changes"] = [asdict(change) for change in all_changes(connection, name)]
        described["delegations"] = [asdict(loan) for loan in list_delegations(connection, name)]
    typer.echo(json.dumps(described, indent=2, ensure_ascii=False, default=str))


def _described(name: str, rights: Rights) -> dict[str, Any]:
    return {
        "name": name,
        "permissions": sorted(rights.permissions),
        "scopes": [str(scope) for scope in rights.scopes if scope.context != "patient"] or [*map(str, rights.scopes)],
        "until": rights.until.isoformat() if rights.until else None,
        "lenders": list(rights.lenders),
    }


def delegate(
    lender: Annotated[str, typer.Argument(metavar="FROM", help="Account that lends.")],
    borrower: Annotated[str, typer.Argument(metavar="TO", help="Account that borrows.")],
    permission: Annotated[str, typer.Option(help="A permission the lender has (docs/roles.md).")],
    until: Annotated[datetime, typer.Option(formats=_DATES, help="When it ends (UTC).")],
    reason: Reason,
) -> None:
    """Lend one permission of an account to another for a limited time (账号借用); the audit shows both."""
    from foramen.identity.database import transaction
    from foramen.identity.people.accounts import require_account
    from foramen.identity.rights.delegations import delegate as lend
    from foramen.kernel.database_url import database_url

    settings = get_settings()
    with transaction(database_url(settings)) as connection:
        made = lend(
            connection,
            require_account(connection, lender),
            require_account(connection, borrower),
            permission,
            until=until.replace(tzinfo=UTC),
            reason=reason,
            longest=timedelta(days=settings.delegation_max_days),
        )
    typer.echo(json.dumps({"id": str(made.id), "until": made.until.isoformat()}))


def end_delegation(
    delegation: Annotated[uuid.UUID, typer.Argument(metavar="ID", help="Id that delegate printed.")],
) -> None:
    """End a loan now; tokens of the borrower that make use of it end."""
    from foramen.identity.database import transaction
    from foramen.identity.rights.delegations import end_delegation as end
    from foramen.kernel.database_url import database_url

    with transaction(database_url(get_settings())) as connection:
        ended = end(connection, delegation, OPERATOR)
    typer.echo(json.dumps({"id": str(ended.id), "ended": True}))


COMMANDS: dict[str, Callable[..., None]] = {
    "grant": grant,
    "withdraw": withdraw,
    "permissions": permissions,
    "delegate": delegate,
    "end-delegation": end_delegation,
}
