"""`foramen audit verify|checkpoint|acknowledge|report`: the audit trail's chain, its heads, and usage by institution.

docs/how-to/audit.md; ADR 0022, 0029
"""

from __future__ import annotations

import asyncio
import csv
import getpass
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foramen.kernel.settings import get_settings

if TYPE_CHECKING:
    from fhir_server.audit.sealer import AuditSealer
    from fhir_server.audit.verify import Kept, Verified

app = typer.Typer(no_args_is_help=True)


@app.command("verify")
def verify(
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="Signed checkpoint the chain has to contain; may be repeated.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Public key (JWK) of those checkpoints; default: this installation's.")
    ] = None,
) -> None:
    """Verify the audit trail: every event, every block, every checkpoint; exit 1 at the first bad place."""
    from fhir_server.audit.verify import TamperedError
    from foramen.kernel.crypto import SignatureError

    try:
        done = asyncio.run(_verify(checkpoint or [], key))
    except (TamperedError, SignatureError) as error:
        typer.echo(f"TAMPERED: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(
        f"good: {done.events} events in {done.blocks} blocks, {done.removed} removed by rule; "
        f"{done.waiting_lists} lists and {done.waiting_groups} groups wait"
        + (f"; {done.breaks} break(s) acknowledged" if done.breaks else "")
    )


async def _verify(files: list[Path], key_file: Path | None) -> Verified:
    import asyncpg
    from rich.console import Console
    from rich.progress import Progress

    from fhir_server.audit.verification import own_seal
    from fhir_server.audit.verify import verify as verify_all
    from foramen.identity.sealing import protect_files
    from foramen.kernel.database_url import database_url

    settings = get_settings()
    url = database_url(settings)
    protect_files(settings)
    seal = own_seal(settings.home, settings.digest)
    kept = _kept_files(settings.home, files, key_file)  # Before the moment that is verified: the chain goes on.
    connection = await asyncpg.connect(url)
    try:
        await _open_sealed(connection)
        with Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task("blocks", total=None)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                kept += await _kept_rows(connection, settings.home)
                return await verify_all(
                    connection, seal, kept, lambda done, total: progress.update(bar, completed=done, total=total)
                )
    finally:
        await connection.close()


async def _open_sealed(connection: Any) -> None:
    """Events are verified as they were written; a few hold what is sealed in the store."""
    from fhir_server.store.resealing import put_in_force
    from foramen.identity.sealing import open_data_keys

    await put_in_force(connection, open_data_keys(get_settings()))


def _kept_files(home: Path, files: list[Path], key_file: Path | None) -> list[Kept]:
    from fhir_server.audit.verification import kept_by_this_machine, kept_in

    named = json.loads(key_file.read_text(encoding="utf-8")) if key_file is not None else None
    return [*kept_by_this_machine(home), *(kept_in(path, home, named) for path in files)]


async def _kept_rows(connection: Any, home: Path) -> list[Kept]:
    from fhir_server.audit.verification import kept_in_table

    return await kept_in_table(connection, home)


@app.command("checkpoint")
def checkpoint() -> None:
    """Sign the head of the chain now; prints the file, which is meant to be copied to another machine."""
    typer.echo(str(asyncio.run(_checkpoint())))


async def _checkpoint() -> Path | None:
    async with _sealing() as sealer:
        await sealer.seal()
        return await sealer.checkpoint()


@app.command("acknowledge")
def acknowledge(
    reason: Annotated[str, typer.Option(help="How it came about (a restored backup, …); never names a patient.")],
    by: Annotated[str, typer.Option(help="Who says so; default: the user of this machine.")] = "",
) -> None:
    """Say that the breaks of the chain that `verify` reports are known; the chain keeps them, and who said so."""
    if not reason.strip():
        raise typer.BadParameter("say how it came about")
    breaks = asyncio.run(_acknowledge(by or getpass.getuser(), reason.strip()))
    if not breaks:
        typer.echo("no break waits to be acknowledged")
    else:
        typer.echo(f"{len(breaks)} break(s) acknowledged: block {', '.join(map(str, breaks))}")


async def _acknowledge(by: str, reason: str) -> list[int]:
    async with _sealing() as sealer:
        return [block.number for block in await sealer.acknowledge(by, reason)]


@asynccontextmanager
async def _sealing() -> AsyncIterator[AuditSealer]:
    """A sealer beside those of the servers, of a chain that has begun."""
    from fhir_server.audit.seal import install
    from fhir_server.audit.sealer import AuditSealer
    from fhir_server.store.connections import Connections
    from foramen.identity.sealing import protect_files
    from foramen.kernel.database_url import database_url

    settings = get_settings()
    connections = Connections(database_url(settings), 1, 60.0)
    await connections.start()
    try:
        async with connections.lend() as connection:
            await _open_sealed(connection)
        protect_files(settings)
        seal = install(settings.home, settings.digest)
        sealer = AuditSealer(connections, seal, settings.home, settings.fhir_base, settings.audit_signature)
        await sealer.begin()
        yield sealer
    finally:
        await connections.stop()


@app.command("report")
def report(
    since: Annotated[datetime, typer.Option("--from", help="First day, or moment (UTC).")],
    until: Annotated[datetime, typer.Option("--to", help="Last day, or moment before which (UTC).")],
    institution: Annotated[str | None, typer.Option(help="Only this Organization (id).")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV instead of JSON.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON (the default).")] = False,
) -> None:
    """Print how the record was used: accesses by institution, role, app, what was done and how it ended."""
    if as_csv and as_json:
        raise typer.BadParameter("choose one of --csv and --json")
    whole_days = until.hour == until.minute == until.second == 0
    end = until.replace(tzinfo=UTC) + (timedelta(days=1) if whole_days else timedelta())
    rows = asyncio.run(_report(since.replace(tzinfo=UTC), end, institution))
    if as_csv:
        writer = csv.DictWriter(sys.stdout, ["institution", "role", "app", "action", "outcome", "count"])
        writer.writeheader()
        writer.writerows(rows)
    else:
        typer.echo(json.dumps({"from": since.isoformat(), "to": until.isoformat(), "rows": rows}, indent=2))


async def _report(since: datetime, until: datetime, institution: str | None) -> list[dict[str, Any]]:
    import asyncpg
    import orjson

    from fhir_server.audit.usage import Usage, UsageReport
    from fhir_server.settings import FhirSettings
    from fhir_server.store.audit_chain import written
    from foramen.identity.database import transaction
    from foramen.identity.people.accounts import list_accounts
    from foramen.kernel.database_url import database_url

    url = database_url(get_settings())
    with transaction(url) as identity:
        accounts = {account.name: Usage(account.role, account.institution) for account in list_accounts(identity)}
    usage = UsageReport(accounts, frozenset(FhirSettings().audit_ai_clients.split(",")))
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            async for content in written(connection, since, until):
                usage.add(orjson.loads(content))
    finally:
        await connection.close()
    return usage.rows(institution)
