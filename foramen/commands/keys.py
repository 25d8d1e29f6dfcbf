"""`foramen keys list|rotate|rotate-data|wrap-data|drop-data`: the keys that sign tokens, and those that seal secrets.

OpenID Connect Core §10.1.1 (rotation of asymmetric signing keys), NIST SP 800-57 part 1 §5.3 (cryptoperiods)
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foramen.kernel.database_url import database_url
from foramen.kernel.errors import ConflictError, InteropError
from foramen.kernel.settings import get_settings

if TYPE_CHECKING:
    from foramen.identity.oauth.signing_keys import SigningKeys
    from foramen.identity.resealing import Resealed
    from foramen.kernel.crypto.generations import Generation
    from foramen.kernel.crypto.key_ring import RingFile

app = typer.Typer(no_args_is_help=True)
_KEEP_OLD_S = 3600
"""Forms in browsers (enrolment of an authenticator app) are sealed too; none is good for longer than a quarter hour."""


@app.command("list")
def list_() -> None:
    """Print the keys as JSON: those that sign tokens, then the generations of those that seal secrets (`use` seal)."""
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
    typer.echo(json.dumps([*listed, *_listed_data_keys(now)], indent=2))


@app.command("rotate")
def rotate(
    now: Annotated[bool, typer.Option("--now", help="Sign with the new key at once, not in ten minutes.")] = False,
    compromised: Annotated[
        bool, typer.Option("--compromised", help="Drop the old keys at once: every token they signed is refused.")
    ] = False,
) -> None:
    """Make the next signing keys; running processes take it over by themselves."""
    key = _keys().rotate(at_once=now, drop_old=compromised)
    typer.echo(json.dumps({"kid": key.kid, "signs_from": _moment(key.signs_from)}))
    _record("compromised" if compromised else "rotated")


@app.command("rotate-data")
def rotate_data(
    reseal_only: Annotated[
        bool, typer.Option("--reseal-only", help="No new key: only seal again, e.g. after FORAMEN_CIPHER was changed.")
    ] = False,
) -> None:
    """Make a new key that seals secrets, and seal with it what is stored, while servers run.

    Stopped in the middle, it goes on with the same key when it is called again.
    """
    import asyncpg
    from sqlalchemy.exc import SQLAlchemyError

    from fhir_server.store.resealing import reseal_record
    from foramen.identity.resealing import reseal
    from foramen.identity.sealing import DataKeys, key_wrapping, open_data_keys, protect_files, ring_file
    from foramen.kernel.crypto.key_ring import KeyRing
    from foramen.kernel.secret_files import take_over

    settings = get_settings()
    file, wrapping = ring_file(settings.home, settings.data_keys_file), key_wrapping(settings)
    with _only_one(file):
        open_data_keys(settings)  # makes the first key; whatever is wrong with keys or cipher is said before any change
        newest = file.read()[-1]
        goes_on = reseal_only or not newest.resealed
        if not goes_on:
            newest = file.add(wrapping)
            _record("data-keys-rotated")
        time.sleep(max(0.0, newest.seals_from - time.time()) + (0 if goes_on else 0.1))
        keys = DataKeys(KeyRing(file, wrapping), settings.cipher)
        try:
            done = reseal(_transaction, keys)
            record = asyncio.run(reseal_record(database_url(settings), keys, _told))
            done.done.update({f"fhir.{table}": count for table, count in record.done.items()})
            done.unreadable.update({f"fhir.{table}": count for table, count in record.unreadable.items()})
            done.left += record.left
        except (SQLAlchemyError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            raise InteropError("The database does not answer: call this again to go on with the same key") from exc
        if settings.kms_command:
            protect_files(settings, keys)
            done.done["secret files"] = len(take_over(settings.home))
        if not done.left:  # what no key opens would be no better next time; the old keys stay in any case
            file.mark_resealed(newest.id)
            _record("data-keys-resealed")
    typer.echo(json.dumps(_report(keys.current_id, settings.cipher, done, goes_on=goes_on)))
    if not done.complete:
        raise typer.Exit(1)


@app.command("status")
def status() -> None:
    """Print which national identifiers are sealed in the record, and how far the sealing of older ones is."""
    from fhir_server.store.resealing import status as sealed

    typer.echo(json.dumps(asyncio.run(sealed(database_url(get_settings()))), indent=2))


@app.command("wrap-data")
def wrap_data() -> None:
    """Wrap the keys that seal secrets by FORAMEN_KMS_COMMAND, wrapped ones anew; they seal the signing keys."""
    from foramen.identity.sealing import key_wrapping, protect_files, ring_file
    from foramen.kernel.secret_files import take_over

    settings = get_settings()
    wrapping = key_wrapping(settings)
    if wrapping is None:
        raise typer.BadParameter("no KMS command is set (FORAMEN_KMS_COMMAND)")
    file = ring_file(settings.home, settings.data_keys_file)
    with _only_one(file):
        file.create(wrapping)
        made = file.wrap(wrapping)
        protect_files(settings)
        sealed = take_over(settings.home)
    typer.echo(json.dumps([{"kid": one.id, "wrapped_by": one.wrapped_by} for one in made]))
    typer.echo(f"sealed: {', '.join(sealed)}", err=True)
    _record("data-keys-wrapped")


@app.command("drop-data")
def drop_data(kid: Annotated[str, typer.Argument(help="Generation, as `foramen keys list` names it.")]) -> None:
    """Forget an old key that seals nothing any more; backups of the database from its time cannot be opened then."""
    from fhir_server.store.resealing import sealed_by
    from foramen.identity.resealing import values_of
    from foramen.identity.sealing import ring_file
    from foramen.kernel.secret_files import files_sealed_by

    settings = get_settings()
    file = ring_file(settings.home, settings.data_keys_file)
    with _only_one(file):
        with _transaction() as connection:
            count = values_of(connection, kid)
        count += asyncio.run(sealed_by(database_url(settings), kid)) + files_sealed_by(settings.home, kid)
        if count:
            raise ConflictError(f"{count} stored values are sealed with it: call `foramen keys rotate-data` first")
        file.drop(kid, _KEEP_OLD_S)
    typer.echo(f"dropped {kid}")
    _record("data-key-dropped")


def _told(seen: int) -> None:
    typer.echo(f"{seen} versions of the record looked at", err=True)


def _report(kid: str, cipher: str, done: Resealed, *, goes_on: bool) -> dict[str, Any]:
    report: dict[str, Any] = {"kid": kid, "cipher": cipher, "new": not goes_on, "resealed": dict(done.done)}
    if not done.complete:
        report |= {"unreadable": dict(+done.unreadable), "left": done.left}
    return report


def _listed_data_keys(now: float) -> list[dict[str, Any]]:
    from foramen.identity.sealing import ring_file
    from foramen.kernel.crypto.generations import current

    settings = get_settings()
    file = ring_file(settings.home, settings.data_keys_file)
    if not file.path.exists():
        return []
    generations = file.read()
    seals = current(generations, now)

    def state(one: Generation) -> str:
        return "active" if one is seals else "next" if one.seals_from > now else "retired"

    return [
        {
            "kid": one.id,
            "use": "seal",
            "alg": settings.cipher,
            "state": state(one),
            "seals_from": _moment(max(one.seals_from, 0.0)),
            "resealed": one.resealed,
            "wrapped_by": one.wrapped_by,
        }
        for one in generations
    ]


@contextmanager
def _only_one(file: RingFile) -> Iterator[None]:
    """One change of data keys at a time."""
    from foramen.kernel.secret_files import file_lock

    with ExitStack() as held:
        try:
            held.enter_context(file_lock(file.path.with_name(f".{file.path.name}.rotation"), wait=False))
        except BlockingIOError as exc:
            raise ConflictError("Another command is changing the data keys") from exc
        except OSError as exc:
            raise InteropError("The folder of the data keys cannot be written") from exc
        yield


@contextmanager
def _transaction() -> Iterator[Any]:
    from foramen.identity.database import transaction

    with transaction(database_url(get_settings())) as connection:
        yield connection


def _record(reason: str) -> None:
    from sqlalchemy.exc import SQLAlchemyError

    from foramen.identity.audit_outbox import record
    from foramen.identity.security_event import SUCCESS, SecurityEvent

    try:
        with _transaction() as connection:
            record(connection, SecurityEvent("key-rotation", SUCCESS, client_id="foramen-cli", reason=reason))
    except SQLAlchemyError:
        typer.echo("foramen: the database does not answer; the rotation leaves no audit event", err=True)


def _keys() -> SigningKeys:
    from foramen.identity.oauth.signing import TokenSigner

    return TokenSigner(get_settings()).keys


def _moment(seconds: float) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else None
