"""`foramen dataset …`: immutable versions of the data that models are trained on, with splits, licence and proof.

Contract module 2; docs/how-to/train_a_model.md.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from foramen.commands import dataset_discs, dataset_labels, dataset_queue

app = typer.Typer(no_args_is_help=True)
app.add_typer(dataset_labels.app, name="labels", help="Decisions of physicians as labels.")
app.command("queue")(dataset_queue.queue)
app.command("discs")(dataset_discs.discs)
Folder = Annotated[Path, typer.Argument(help="The data; the manifest is written beside it.")]
Manifest = Annotated[Path, typer.Argument(help="Manifest of a version.")]
_SHOWN = 20


@app.command()
def create(
    folder: Folder,
    name: Annotated[str, typer.Option(help="Name of the dataset.")],
    licence: Annotated[str, typer.Option(help="Licence of the data, e.g. CC BY 4.0.")],
    source: Annotated[str, typer.Option(help="Where the data comes from: citation or cohort.")],
    by: Annotated[str, typer.Option(help="Who makes the version.")],
    deidentification: Annotated[Path | None, typer.Option(help="Report that proves it.")] = None,
    seed: Annotated[int, typer.Option(help="Of the splits.")] = 1,
    kept_aside: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share of patients for validation, and for test.")
    ] = 0.1,
) -> None:
    """Make a version: hash every file and draw patient-level splits."""
    from ai_services.training.dataset_version import DatasetError, make_version, save

    try:
        version = make_version(
            folder,
            name=name,
            licence=licence,
            source=source,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            created_by=by,
            deidentification=deidentification,
            seed=seed,
            shares={"train": 1 - 2 * kept_aside, "validation": kept_aside, "test": kept_aside},
        )
        path = save(folder, version)
    except DatasetError as refused:
        raise typer.BadParameter(str(refused)) from refused
    table = Table("split", "patients")
    for split, patients in version.splits.items():
        table.add_row(split, str(len(patients)))
    Console().print(table)
    typer.echo(f"{len(version.files)} files, version {version.digest[:12]}: {path}")


@app.command()
def verify(folder: Folder, manifest: Manifest) -> None:
    """Read every file again; exit 1 where the folder is not what the manifest says."""
    from ai_services.training.dataset_version import DatasetError, compare, load

    try:
        told = compare(folder, load(manifest))
    except DatasetError as refused:
        raise typer.BadParameter(str(refused)) from refused
    for word, paths in (("missing", told.missing), ("changed", told.changed), ("came later", told.added)):
        for path in paths[:_SHOWN]:
            typer.echo(f"{word}: {path}")
        if len(paths) > _SHOWN:
            typer.echo(f"{word}: {len(paths) - _SHOWN} more")
    if not told.none:
        raise typer.Exit(1)
    typer.echo("every file of the version is there, unchanged")
