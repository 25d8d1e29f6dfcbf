"""`foramen token`: print one scoped bearer token for an operator, valid for `/fhir` and `/dicom-web`, and nothing else.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html
"""

from __future__ import annotations

from typing import Annotated

import typer

from foramen.kernel.embedded_postgres import postgres_pid
from foramen.kernel.settings import Settings, get_settings


def token(
    scopes: Annotated[str, typer.Option(help='SMART scopes, e.g. "system/*.cruds".')],
    patient: Annotated[str | None, typer.Option(help="Patient that patient/ scopes reach (logical id).")] = None,
    user: Annotated[str | None, typer.Option(help="Account to act as; without it the token names no person.")] = None,
    expires_in: Annotated[int, typer.Option(min=1, help="Lifetime in seconds.")] = 3600,
) -> None:
    """Print one bearer token."""
    from sqlalchemy.exc import SQLAlchemyError

    from foramen.identity.oauth.operator_token import operator_token

    settings = get_settings()
    url = _database_url(settings, needed=user is not None)
    try:
        text = operator_token(settings, url, scopes, expires_in_s=expires_in, patient=patient, user=user)
    except SQLAlchemyError:
        if user is not None:
            raise
        typer.echo("foramen: the database does not answer; this token leaves no audit event", err=True)
        text = operator_token(settings, None, scopes, expires_in_s=expires_in, patient=patient)
    typer.echo(text)


def _database_url(settings: Settings, *, needed: bool) -> str | None:
    """Use the database when it is at hand (the issue is then audited); start the embedded one only for an account."""
    from foramen.kernel.database_url import database_url

    running = settings.database_url is not None or postgres_pid(settings.home / "postgres") is not None
    return database_url(settings) if needed or running else None
