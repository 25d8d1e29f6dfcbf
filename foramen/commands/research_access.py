"""Who may draw labels and queue studies: an account with the permission `train`, within its institution.

The token reads identified records, as a de-identification has to; what leaves the command are pseudonyms. It reaches
what the account's institution does, Consents apply to it, and every read stands in the audit trail under its name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from foramen.kernel.errors import ForbiddenError, InteropError
from foramen.kernel.settings import Settings

if TYPE_CHECKING:
    from ai_services.monitoring.scanner import ScannerLookup
    from foramen.kernel.fhir_client import FhirClient

TRAIN = "train"
COULD_NOT_LOOK = 2
"""Exit status: neither "nothing there" nor an alarm, which are 1."""
_LIFETIME_S = 86_400


@dataclass(frozen=True, slots=True)
class Doors:
    """Record and archive with one token."""

    fhir: FhirClient
    scanners: ScannerLookup


@contextmanager
def looking() -> Iterator[None]:
    """End the command with `COULD_NOT_LOOK` and one line where record or archive refuse or do not answer."""
    try:
        yield
    except InteropError as error:
        typer.echo(f"foramen: {error.message}", err=True)
        raise typer.Exit(COULD_NOT_LOOK) from error


def researcher_token(settings: Settings, user: str, scopes: str) -> str:
    """Sign a token for an account that may train; asking is audited, refusals too.

    Raises
    ------
    NotFoundError
        There is no such account.
    ForbiddenError
        It does not have the permission.
    """
    from foramen.identity.audit_outbox import record
    from foramen.identity.database import transaction
    from foramen.identity.oauth.operator_token import CLIENT_ID, operator_token
    from foramen.identity.people.accounts import require_account
    from foramen.identity.rights.permissions import rights_of
    from foramen.identity.security_event import REFUSED, SecurityEvent
    from foramen.kernel.database_url import database_url

    url = database_url(settings)
    with transaction(url) as connection:
        account = require_account(connection, user)
        allowed = not account.disabled and TRAIN in rights_of(connection, account).permissions
        if not allowed:
            reason = f"lacks the permission {TRAIN}"
            record(
                connection,
                SecurityEvent("operator_token", REFUSED, account=account.name, client_id=CLIENT_ID, reason=reason),
            )
    if not allowed:
        raise ForbiddenError(f"The account lacks the permission {TRAIN}: foramen user grant NAME {TRAIN} --reason …")
    return operator_token(settings, url, scopes, expires_in_s=_LIFETIME_S, user=user)


@asynccontextmanager
async def doors(settings: Settings, token: str) -> AsyncIterator[Doors]:
    """Open record and archive with a token."""
    import httpx

    from ai_services.monitoring.scanner import ScannerLookup
    from foramen.kernel.fhir_client import FhirClient

    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers, timeout=120, trust_env=False) as http:
        origin = settings.internal_origin
        yield Doors(FhirClient(f"{origin}/fhir", http), ScannerLookup(http, f"{origin}/dicom-web"))
