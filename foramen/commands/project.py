"""`foramen project add|list`: projects for which pseudonymised data is exported (docs/api/pseudonymised-export.md)."""

from __future__ import annotations

from typing import Annotated

import typer

from foramen.kernel.settings import get_settings

app = typer.Typer(no_args_is_help=True)


@app.command("add")
def add(name: Annotated[str, typer.Argument(help="Name: a-z, 0-9, - and _.")]) -> None:
    """Make a project's key; a project that is there already keeps its key."""
    from fhir_server.bulk.projects import add_project

    made = add_project(get_settings().home, name)
    typer.echo(f"project {name} made" if made else f"project {name} is there already")


@app.command("list")
def list_() -> None:
    """Print the names of all projects."""
    from fhir_server.bulk.projects import projects

    for name in projects(get_settings().home):
        typer.echo(name)
