"""`foramen package install|list|remove`: implementation guides (npm-format FHIR packages) of the record.

https://hl7.org/fhir/R4/packages.html
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True)


def _with_connection(work: Callable[[Any], Awaitable[Any]]) -> Any:
    """Run work on a connection to the record's database, its schema up to date."""
    import asyncpg

    from fhir_server.app import migrate
    from foramen.kernel.database_url import database_url
    from foramen.kernel.settings import get_settings

    url = database_url(get_settings())
    migrate(url)

    async def run() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(run())


@app.command("install")
def install(
    files: Annotated[list[Path], typer.Argument(help="Package files (.tgz).", exists=True, dir_okay=False)],
) -> None:
    """Install packages; running web processes see them within a second."""
    from fhir_server.packages.archive import PackageLimits
    from fhir_server.packages.install import prepare
    from fhir_server.settings import FhirSettings
    from fhir_server.store import packages

    limits = FhirSettings()
    bounds = PackageLimits(limits.max_package_entries, limits.max_package_unpacked_bytes)
    read = [prepare(path.read_bytes(), bounds) for path in files]

    async def work(connection: Any) -> None:
        for package in read:
            await packages.install(connection, package.name, package.version, package.canonical, package.resources)

    _with_connection(work)
    for package in read:
        typer.echo(json.dumps({"name": package.name, "version": package.version, "resources": len(package.resources)}))


@app.command("list")
def list_() -> None:
    """Print the installed packages as JSON."""
    from fhir_server.store import packages

    found = _with_connection(packages.installed)
    rows = [
        {
            "name": item.name,
            "version": item.version,
            "canonical": item.canonical,
            "resources": item.resources,
            "installed": item.installed_at.isoformat(),
        }
        for item in found
    ]
    typer.echo(json.dumps(rows, indent=2))


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="Name of the package, or name#version.")],
) -> None:
    """Remove a package (all its versions, or one)."""
    from fhir_server.store import packages

    stem, _, version = name.partition("#")

    async def work(connection: Any) -> int:
        return await packages.remove(connection, stem, version or None)

    removed = _with_connection(work)
    if not removed:
        typer.echo("foramen: no such package is installed", err=True)
        raise typer.Exit(1)
    typer.echo(json.dumps({"removed": removed}))
