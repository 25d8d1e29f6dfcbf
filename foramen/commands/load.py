"""`foramen load PATH…`: FHIR Bundles, single resources and NDJSON into the running server, with progress.

https://hl7.org/fhir/R4/http.html#transaction
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from foramen.kernel.settings import Settings, get_settings

if TYPE_CHECKING:
    import httpx

BATCH_SIZE = 200


def load(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders: .json (resource or Bundle), .ndjson.")],
) -> None:
    """Load FHIR resources into the running server; resources with an id keep it, so a repeat changes nothing twice."""
    from rich.console import Console
    from rich.progress import Progress

    from foramen.identity.oauth.operator_token import operator_token
    from foramen.kernel.database_url import database_url

    settings = get_settings()
    token = operator_token(settings, database_url(settings), "system/*.cruds", expires_in_s=3600)
    console = Console(stderr=True)
    failures: list[str] = []
    files = [file for path in paths for file in _files(path)]
    if not files:
        raise typer.BadParameter("no .json or .ndjson file there", param_hint="PATH")
    with Progress(console=console) as progress, _client(settings, token) as client:
        bar = progress.add_task("load", total=len(files))
        loaded = 0
        for file in files:
            done, faults = load_file(client, file)
            loaded += done
            failures += faults
            progress.advance(bar)
    console.print(f"{loaded} resources loaded, {len(failures)} refused")
    for failure in failures[:50]:
        console.print(f"  {failure}", markup=False, highlight=False)
    raise typer.Exit(1 if failures else 0)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix in (".json", ".ndjson"))
    if not path.exists():
        raise typer.BadParameter(f"{path} does not exist", param_hint="PATH")
    return [path]


def _client(settings: Settings, token: str) -> httpx.Client:
    import httpx

    from foramen.kernel.outcome import FHIR_JSON

    headers = {"Authorization": f"Bearer {token}", "Content-Type": FHIR_JSON, "Accept": FHIR_JSON}
    return httpx.Client(base_url=f"{settings.internal_origin}/fhir", headers=headers, timeout=300)


def load_file(client: httpx.Client, file: Path) -> tuple[int, list[str]]:
    """Load one file; returns how many resources were written and what was refused, with file and place."""
    try:
        items = list(_items(file))
    except orjson.JSONDecodeError as exc:
        return 0, [f"{file.name}: not JSON ({exc.msg}, line {exc.lineno})"]
    loaded = 0
    failures: list[str] = []
    bundles = [item for _, item in items if item.get("resourceType") == "Bundle"]
    for bundle in bundles:
        done, faults = _post_bundle(client, file.name, bundle)
        loaded, failures = loaded + done, failures + faults
    resources = [(place, item) for place, item in items if item.get("resourceType") != "Bundle"]
    for first in range(0, len(resources), BATCH_SIZE):
        done, faults = _post_batch(client, resources[first : first + BATCH_SIZE])
        loaded, failures = loaded + done, failures + faults
    return loaded, failures


def _items(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if file.suffix == ".ndjson":
        for number, line in enumerate(file.read_bytes().splitlines(), start=1):
            if line.strip():
                yield f"{file.name}:{number}", orjson.loads(line)
    else:
        yield file.name, orjson.loads(file.read_bytes())


def _entry(resource: dict[str, Any]) -> dict[str, Any]:
    kind, logical_id = resource.get("resourceType", ""), resource.get("id")
    request = {"method": "PUT", "url": f"{kind}/{logical_id}"} if logical_id else {"method": "POST", "url": kind}
    return {"resource": resource, "request": request}


def _post_bundle(client: httpx.Client, name: str, bundle: dict[str, Any]) -> tuple[int, list[str]]:
    from foramen.kernel.fhir_client import error_of

    if bundle.get("type") in ("transaction", "batch"):
        response = client.post("", content=orjson.dumps(bundle))
        if response.status_code >= 400:
            return 0, [f"{name}: {error_of(response).message}"]
        return len(bundle.get("entry", [])), []
    entries = [(f"{name} entry {n}", entry["resource"]) for n, entry in enumerate(bundle.get("entry", []))]
    return _post_batch(client, entries)


def _post_batch(client: httpx.Client, resources: list[tuple[str, dict[str, Any]]]) -> tuple[int, list[str]]:
    from foramen.kernel.fhir_client import error_of

    if not resources:
        return 0, []
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": [_entry(item) for _, item in resources]}
    response = client.post("", content=orjson.dumps(bundle))
    if response.status_code >= 400:
        return 0, [f"{resources[0][0]}…: {error_of(response).message}"]
    failures: list[str] = []
    for (place, _), entry in zip(resources, orjson.loads(response.content)["entry"], strict=True):
        if not entry["response"]["status"].startswith("2"):
            issue = entry["response"].get("outcome", {}).get("issue", [{}])[0]
            failures.append(f"{place}: {entry['response']['status']} {issue.get('diagnostics', '')}")
    return len(resources) - len(failures), failures
