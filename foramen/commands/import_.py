"""`foramen import PATH…`: NDJSON files into the running server as bulk imports, with progress.

docs/api/import.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from foramen.kernel.settings import get_settings

_SUFFIXES = (".ndjson", ".ndjson.gz")
_PIECE = 1 << 20


def import_(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders: .ndjson, .ndjson.gz.")],
    errors: Annotated[Path | None, typer.Option(help="File for the refusals (OperationOutcomes, NDJSON).")] = None,
) -> None:
    """Import FHIR resources in bulk; ids are kept, what is refused is told by line, the rest is written."""
    from rich.console import Console

    from foramen.commands.bulk_client import BulkClient

    files = [file for path in paths for file in _files(path)]
    if not files:
        raise typer.BadParameter("no .ndjson or .ndjson.gz file there", param_hint="PATH")
    client = BulkClient(get_settings(), "system/*.cruds foramen/admin")
    console = Console(stderr=True)
    written = refused = 0
    for file in files:
        manifest = _import_file(client, file, console)
        written += sum(item["count"] for item in manifest["output"])
        refused += manifest["refused"]
        for item in manifest["error"]:
            _tell(client, item["url"], file, errors, console)
    console.print(f"{written} resources written, {refused} refused")
    raise typer.Exit(1 if refused else 0)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.name.endswith(_SUFFIXES))
    if not path.exists():
        raise typer.BadParameter(f"{path} does not exist", param_hint="PATH")
    return [path]


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(_PIECE):
            yield piece


def _import_file(client: Any, file: Path, console: Any) -> dict[str, Any]:
    headers = {"Content-Type": "application/fhir+ndjson"}
    with console.status(f"{file.name}: upload") as line:
        response = client.http.post(client.url("$import"), content=_pieces(file), headers=headers)
        manifest: dict[str, Any] = {}
        for told in client.progress(client.kicked_off(response)):
            if isinstance(told, dict):
                manifest = told
            else:
                line.update(f"{file.name}: {told}")
    return manifest


def _tell(client: Any, url: str, file: Path, errors: Path | None, console: Any) -> None:
    """Print the first refusals, or append all of them to the error file."""
    import orjson

    content = client.http.get(client.url(url), headers={"Accept": "application/fhir+ndjson"}).content
    if errors is not None:
        with errors.open("ab") as opened:
            opened.write(content)
        return
    for line in content.splitlines()[:50]:
        issue = orjson.loads(line)["issue"][0]
        console.print(f"  {file.name}: {issue.get('diagnostics', '')}", markup=False, highlight=False)
