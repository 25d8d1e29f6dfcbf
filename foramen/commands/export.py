"""`foramen export DIR`: a bulk export of the running server into a folder of NDJSON files.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from foramen.kernel.settings import get_settings


def export(
    folder: Annotated[Path, typer.Argument(help="Where the files go; made when it is not there.")],
    resource_type: Annotated[list[str] | None, typer.Option("--type", help="Resource type; may be repeated.")] = None,
    group: Annotated[str | None, typer.Option(help="Only the records of this Group's patients (id).")] = None,
    patients: Annotated[bool, typer.Option("--patients", help="Only records of patients.")] = False,
    since: Annotated[str | None, typer.Option(help="Only what changed after this instant.")] = None,
    type_filter: Annotated[list[str] | None, typer.Option(help='Search, e.g. "Observation?code=F01".')] = None,
    pseudonymise: Annotated[str | None, typer.Option(help="Project whose pseudonyms are written.")] = None,
) -> None:
    """Export FHIR resources as NDJSON, with progress; manifest.json tells what there is."""
    from rich.console import Console

    from foramen.commands.bulk_client import BulkClient

    if group and patients:
        raise typer.BadParameter("choose one of --group and --patients")
    path = f"Group/{group}/$export" if group else "Patient/$export" if patients else "$export"
    query: list[tuple[str, str | int | float | bool | None]] = [("_type", name) for name in resource_type or ()]
    query += [("_typeFilter", text) for text in type_filter or ()]
    query += [(n, v) for n, v in (("_since", since), ("_pseudonymise", pseudonymise)) if v]
    client = BulkClient(get_settings(), "system/*.rs")
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    with console.status("export") as line:
        status_url = client.kicked_off(
            client.http.get(client.url(path), params=query, headers={"Prefer": "respond-async"})
        )
        manifest: dict[str, Any] = {}
        for told in client.progress(status_url):
            if isinstance(told, dict):
                manifest = told
            else:
                line.update(f"export: {told}")
    count = _download(client, manifest, folder)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    client.http.delete(status_url)
    console.print(f"{count} resources exported as of {manifest['transactionTime']}")


def _download(client: Any, manifest: dict[str, Any], folder: Path) -> int:
    """Fetch all files; the manifest then names them as they lie in the folder. Returns the number of resources."""
    from rich.progress import Progress

    count = 0
    items = [
        (kind, place, item) for kind in ("output", "deleted", "error") for place, item in enumerate(manifest[kind])
    ]
    with Progress() as progress:
        bar = progress.add_task("download", total=len(items))
        for kind, place, item in items:
            name = f"{'' if kind == 'output' else kind + '.'}{item['type']}.{place:04d}.ndjson"
            client.download(item["url"], folder / name)
            item["url"] = name
            count += item["count"] if kind == "output" else 0
            progress.advance(bar)
    return count
