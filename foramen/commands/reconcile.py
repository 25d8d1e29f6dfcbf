"""`foramen reconcile`: archive, index and record compared, mended and told; a person's confirmation.

docs/how-to/reconcile_archive.md, ADR 0041. Exit status: 0 all in line, 3 drift is left, 1 something could not be asked.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foramen.kernel.settings import get_settings

if TYPE_CHECKING:
    from dicomweb.reconciliation.command_parts import CommandParts
    from dicomweb.reconciliation.full_run import Difference

DRIFT_LEFT = 3
_LONGEST_WAIT_S = 1800.0
_MOST_SHOWN = 1000


class Format(StrEnum):
    """How the result is written."""

    TEXT = "text"
    JSON = "json"
    HTML = "html"


def reconcile(
    study: Annotated[str | None, typer.Option(help="This study alone (Study Instance UID).")] = None,
    mend: Annotated[bool, typer.Option("--mend", help="Have the running gateway mend what may be mended.")] = False,
    anew: Annotated[bool, typer.Option("--anew", help="Do not go on where an interrupted run stopped.")] = False,
    output: Annotated[Format, typer.Option("--format", help="text or json to the screen, html into --folder.")] = (
        Format.TEXT
    ),
    folder: Annotated[Path, typer.Option(help="Where the pages go (html).")] = Path("reconciliation"),
    report: Annotated[bool, typer.Option("--report", help="Compare nothing: only tell what was found so far.")] = False,
    confirm: Annotated[int | None, typer.Option(help="Confirm the finding with this number.")] = None,
    user: Annotated[str | None, typer.Option(help="Who confirms; it stands in the audit trail.")] = None,
) -> None:
    """Compare the image archive, the index and the record's ImagingStudies, both ways."""
    if confirm is not None:
        if user is None:
            raise typer.BadParameter("say who confirms", param_hint="--user")
        typer.echo(asyncio.run(_confirm(confirm, user)))
        return
    left = asyncio.run(_run(study, mend, anew, output, folder, compare=not report))
    raise typer.Exit(DRIFT_LEFT if left else 0)


async def _run(study: str | None, mend: bool, anew: bool, output: Format, folder: Path, *, compare: bool) -> bool:
    from dicomweb.reconciliation.command_parts import command_parts
    from dicomweb.reconciliation.report import report_data

    async with command_parts(get_settings()) as parts:
        found = await _compared(parts, study, mend, anew) if compare else []
        unmended = await _mended(parts, found) if mend else bool(found)
        async with parts.database.connection() as connection:
            data = await report_data(connection)
    if study is not None:
        data["waiting"] = [one for one in data["waiting"] if one["study"] == study]
        data["ended"] = [one for one in data["ended"] if one["study"] == study]
    data["differences"] = [
        {"study": one.study_instance_uid, "kind": one.kind.code, "instances": one.instances} for one in found
    ]
    _write(data, output, folder, mended=mend)
    return unmended or bool(data["waiting"])


async def _compared(parts: CommandParts, study: str | None, mend: bool, anew: bool) -> list[Difference]:
    """Compare, with a progress bar; of very many differences the first are kept to be shown, all are noted."""
    found: list[Difference] = []
    total = 2 if study else await parts.study_count()
    with typer.progressbar(length=max(total, 1), label="studies", file=sys.stderr) as bar:
        async for one in parts.full_run.compare(study=study, mend=mend, anew=anew, tell=bar.update):
            if len(found) < _MOST_SHOWN:
                found.append(one)
    return found


async def _mended(parts: CommandParts, found: list[Difference]) -> bool:
    """Wait until the gateway has worked through what was noted; returns whether something is left undone."""
    uids = sorted({one.study_instance_uid for one in found})
    deadline = time.monotonic() + _LONGEST_WAIT_S
    while uids and (waiting := await parts.being_mended(uids)):
        if time.monotonic() > deadline:
            typer.echo(f"{waiting} studies are not mended yet: does the gateway run?", err=True)
            return True
        await asyncio.sleep(0.5)
    return False


def _write(data: dict[str, object], output: Format, folder: Path, *, mended: bool) -> None:
    from dicomweb.deidentification.run import write_whole
    from dicomweb.reconciliation.report import FILES, report_page, report_text

    if output is Format.JSON:
        typer.echo(json.dumps(data, ensure_ascii=False, indent=2))
        return
    if output is Format.HTML:
        for lang, name in FILES.items():
            write_whole(folder / name, report_page(lang, data).encode())
        typer.echo(f"open {folder / FILES['zh-CN']}")
        return
    differences = data["differences"]
    for one in differences if isinstance(differences, list) else ():
        typer.echo(f"{'mended or waiting' if mended else 'out of line'}: {one['kind']} {one['study']}")
    typer.echo(report_text(data))


async def _confirm(number: int, user: str) -> str:
    from dicomweb.reconciliation.command_parts import command_parts
    from foramen.commands.lifecycle import person

    who = await asyncio.to_thread(person, user)
    async with command_parts(get_settings()) as parts:
        study = await parts.confirm(number, who)
    return f"confirmed: {study}"
