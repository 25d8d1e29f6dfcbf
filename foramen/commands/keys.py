"""`foramen keys list|rotate`: the keys that sign tokens.

OpenID Connect Core §10.1.1 (rotation of asymmetric signing keys)
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from foramen.kernel.settings import get_settings

if TYPE_CHECKING:
    from foramen.identity.signing_keys import SigningKeys

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """Print the published keys as JSON: which signs now, since when, and until when the tokens of old ones live."""
    keys = _keys()
    now = time.time()
    listed = [
        {
            "kid": key.kid,
            "alg": key.alg,
            "state": "active" if key.kid == keys.active(key.alg).kid else "next" if key.signs_from > now else "retired",
            "signs_from": _moment(key.signs_from),
            "tokens_until": _moment(key.tokens_until),
        }
        for key in keys.all()
    ]
    typer.echo(json.dumps(listed, indent=2))


@app.command("rotate")
def rotate(
    now: Annotated[bool, typer.Option("--now", help="Sign with the new key at once, not in ten minutes.")] = False,
    compromised: Annotated[
        bool, typer.Option("--compromised", help="Drop the old keys at once: every token they signed is refused.")
    ] = False,
) -> None:
    """Make the next signing keys; running processes take it over by themselves."""
    from sqlalchemy.exc import SQLAlchemyError

    from foramen.identity.audit_outbox import record
    from foramen.identity.database import transaction
    from foramen.identity.security_event import SUCCESS, SecurityEvent
    from foramen.kernel.database_url import database_url

    key = _keys().rotate(at_once=now, drop_old=compromised)
    typer.echo(json.dumps({"kid": key.kid, "signs_from": _moment(key.signs_from)}))
    reason = "compromised" if compromised else "rotated"
    try:
        with transaction(database_url(get_settings())) as connection:
            record(connection, SecurityEvent("key-rotation", SUCCESS, client_id="foramen-cli", reason=reason))
    except SQLAlchemyError:
        typer.echo("foramen: the database does not answer; the rotation leaves no audit event", err=True)


def _keys() -> SigningKeys:
    from foramen.identity.signing import TokenSigner

    return TokenSigner(get_settings()).keys


def _moment(seconds: float) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else None
