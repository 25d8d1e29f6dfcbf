"""`foramen dataset discs`: decisions of physicians and their de-identified images, as a grader is trained on them.

Contract module 2; docs/how-to/learn_from_corrections.md, ADR 0053.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def discs(
    folder: Annotated[Path, typer.Argument(help="New folder for the tables; foramen train reads it.")],
    labels: Annotated[Path, typer.Option(help="Folder of foramen dataset labels draw.")],
    images: Annotated[Path, typer.Option(help="Folder of foramen deidentify, of the same project.")],
    licence: Annotated[str, typer.Option(help="Terms under which the data may be used.")],
    by: Annotated[str, typer.Option(help="Who makes the version.")],
    name: Annotated[str, typer.Option(help="Name of the dataset.")] = "discs",
    seed: Annotated[int, typer.Option(help="Of the splits.")] = 1,
    kept_aside: Annotated[
        float, typer.Option(min=0, max=0.4, help="Share of patients for validation, and for test.")
    ] = 0.1,
) -> None:
    """Lay out discs with what was decided about them, as an immutable version; exit 1 when there is nothing."""
    from ai_services.pipelines.lumbar_mr.infer import load_networks
    from ai_services.training.dataset_version import DatasetError
    from ai_services.training.labels.layout import lay_out, sources_of, write

    if folder.exists() and any(folder.iterdir()):
        raise typer.BadParameter("the folder is not empty: a version is made once")
    try:
        sources, networks = sources_of(labels, images), load_networks()
        laid = lay_out(sources, networks)
        for reason, count in sorted(laid.left_out.items()):
            if count:
                typer.echo(f"left out, {reason}: {count}")
        if not laid.tables:
            typer.echo("no disc could be laid out")
            raise typer.Exit(1)
        shares = {"train": 1 - 2 * kept_aside, "validation": kept_aside, "test": kept_aside}
        how = {"name": name, "licence": licence, "by": by}
        path, version = write(folder, laid, sources, networks, **how, seed=seed, shares=shares)
    except DatasetError as refused:
        raise typer.BadParameter(str(refused)) from refused
    table = Table("split", "patients")
    for split, patients in version.splits.items():
        table.add_row(split, str(len(patients)))
    Console().print(table)
    typer.echo(f"{len(laid.tables)} series, version {version.digest[:12]}: {path}")
