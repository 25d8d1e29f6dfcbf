"""`foramen terminology import|list|remove`: licensed code systems from the hospital's own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from foramen.kernel.settings import get_settings

app = typer.Typer(no_args_is_help=True)


@app.command("import")
def import_(
    kind: Annotated[
        str,
        typer.Argument(
            help="snomed, loinc, icd10, icd10-clinical, icd10-insurance, icd9cm3-clinical, icd9cm3-insurance or csv."
        ),
    ],
    path: Annotated[Path, typer.Argument(help="File, folder or zip of the release.", exists=True)],
    version: Annotated[str | None, typer.Option(help="Version, where the files do not say it.")] = None,
    url: Annotated[str | None, typer.Option(help="URL of the code system, where it is not the usual one.")] = None,
    report: Annotated[Path | None, typer.Option(help="Where the rows that were left out are listed (CSV).")] = None,
) -> None:
    """Import a release; the one in use stays until the new one is complete. Repeating it is harmless."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from foramen.kernel.database_url import database_url
    from terminology.importers.kinds import open_release
    from terminology.importers.release import Problems
    from terminology.store.importing import import_release
    from terminology.store.schema import migrate

    problems = Problems()
    database = database_url(get_settings())
    migrate(database)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:,}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, int] = {}

        def tell(step: str, done: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=None)
            bar.update(tasks[step], completed=done)  # type: ignore[arg-type]

        release = open_release(kind, path, problems, version, url)
        done = import_release(database, release, problems, tell)
    answer = {"url": done.url, "version": done.version, "concepts": done.concepts, "replaced": done.replaced}
    if problems.count:
        target = report or Path.cwd() / f"terminology-import-{kind}-problems.csv"
        problems.write(target)
        answer |= {"rows_left_out": problems.count, "report": str(target)}
    typer.echo(json.dumps(answer, ensure_ascii=False))


@app.command("list")
def list_() -> None:
    """Print the imported code systems as JSON; of several versions of one URL the first is in use."""
    from foramen.kernel.database_url import database_url
    from terminology.store.importing import list_releases

    releases = list_releases(database_url(get_settings()))
    typer.echo(json.dumps(releases, indent=2, ensure_ascii=False, default=str))


@app.command("remove")
def remove(
    url: Annotated[str, typer.Argument(help="URL of the code system.")],
    version: Annotated[str | None, typer.Option(help="One version; all without it.")] = None,
) -> None:
    """Remove an imported code system."""
    from foramen.kernel.database_url import database_url
    from terminology.store.importing import remove as remove_release

    typer.echo(json.dumps({"removed": remove_release(database_url(get_settings()), url, version)}))
