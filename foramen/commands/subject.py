"""`foramen subject`: rights of the person whose record it is: a copy of their data, erasure, legal holds.

PIPL art. 45, 47; docs/how-to/subject_rights.md. All of it asks the running server, with the token of an account where a
person has to answer for it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foramen.kernel.settings import get_settings

if TYPE_CHECKING:
    from rich.console import Console

    from foramen.commands.bulk_client import BulkClient

app = typer.Typer(no_args_is_help=True)
Patient = Annotated[str, typer.Argument(help="Patient (logical id).")]
User = Annotated[str, typer.Option(help="Your account; the approver's must be another.")]
Reason = Annotated[str, typer.Option(help="Why; kept for years, so it may not name the person.")]
_SCOPE = "foramen/admin"


@app.command("export")
def export(
    patient: Patient,
    folder: Annotated[Path, typer.Argument(help="Where the files go: an empty folder, or one to make.")],
    user: User,
    history: Annotated[bool, typer.Option("--history", help="Earlier versions as well.")] = False,
) -> None:
    """Make a full copy of one person's data: NDJSON, who saw it, a page to read it, where the images are."""
    from rich.console import Console

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()):  # Perhaps of another person, with whose files this copy would be handed over.
        raise typer.BadParameter("the folder is not empty")
    client, console = _client(user), Console(stderr=True)
    before = os.umask(0o077)  # The folder may be open to others: the files are not.
    try:
        count = _export(client, patient, folder, console, history=history)
    finally:
        os.umask(before)
    console.print(f"{count} resources; open {folder / 'summary.html'}")


def _export(client: BulkClient, patient: str, folder: Path, console: Console, *, history: bool) -> int:
    """Let the server make the copy, fetch it, and let the server throw its own away; returns how many resources."""
    body = _parameters(history=history)
    response = client.http.post(
        client.url(f"Patient/{_id(patient)}/$subject-export"), json=body, headers={"Prefer": "respond-async"}
    )
    status_url = client.kicked_off(response)
    manifest: dict[str, Any] = {}
    with console.status("export") as line:
        for told in client.progress(status_url):
            if isinstance(told, dict):
                manifest = told
            else:
                line.update(f"export: {told}")
    count = _download(client, manifest, folder)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    client.http.delete(status_url)
    return count


def _download(client: BulkClient, manifest: dict[str, Any], folder: Path) -> int:
    """Fetch all files; the manifest then names them as they lie in the folder. Returns the number of resources."""
    more = manifest["extension"]
    lists = {"": manifest["output"], "history.": more["history"], "access-log.": more["accessLog"]}
    for prefix, items in lists.items():
        for place, item in enumerate(items):
            name = f"{prefix}{item['type']}.{place:04d}.ndjson"
            client.download(item["url"], folder / name)
            item["url"] = name
    client.download(more["summary"], folder / "summary.html")
    more["summary"] = "summary.html"
    return sum(item["count"] for item in manifest["output"])


@app.command("preview")
def preview(patient: Patient, user: User) -> None:
    """Say what an erasure would remove, what stays and why."""
    _print(_client(user), "GET", f"Patient/{_id(patient)}/$erase-preview")


@app.command("erase")
def erase(patient: Patient, user: User, reason: Reason) -> None:
    """Ask for the erasure of a record; another administrator approves it."""
    _print(_client(user), "POST", f"Patient/{_id(patient)}/$erase", reason=reason)


@app.command("approve")
def approve(patient: Patient, request: Annotated[str, typer.Argument()], user: User, reason: Reason) -> None:
    """Approve an erasure that another administrator asked for."""
    _decide("approve", patient, request, user, reason)


@app.command("refuse")
def refuse(patient: Patient, request: Annotated[str, typer.Argument()], user: User, reason: Reason) -> None:
    """Refuse an erasure, or withdraw your own request."""
    _decide("refuse", patient, request, user, reason)


@app.command("lift")
def lift(patient: Patient, request: Annotated[str, typer.Argument()], user: User, reason: Reason) -> None:
    """Open a record again that was closed and not erased."""
    _decide("lift", patient, request, user, reason)


@app.command("status")
def status(patient: Patient, user: User) -> None:
    """List the requests to erase a record, and what became of them."""
    _print(_client(user), "GET", f"Patient/{_id(patient)}/$erase")


@app.command("hold")
def hold(
    resource: Annotated[str, typer.Argument(help="Patient/id or ImagingStudy/id.")],
    user: User,
    reason: Reason,
    basis: Annotated[str, typer.Option(help="Law, article or case.")],
    until: Annotated[str | None, typer.Option(help="End (date); without it, until it is released.")] = None,
) -> None:
    """Place a legal hold: nothing of it is erased or expunged."""
    _print(_client(user), "POST", f"{_resource(resource)}/$legal-hold", reason=reason, basis=basis, until=until)


@app.command("release")
def release(
    resource: Annotated[str, typer.Argument(help="Patient/id or ImagingStudy/id.")],
    hold: Annotated[str, typer.Argument(help="Id of the hold.")],
    user: User,
    reason: Reason,
) -> None:
    """End a legal hold."""
    _print(_client(user), "POST", f"{_resource(resource)}/$legal-hold-release", hold=hold, reason=reason)


@app.command("holds")
def holds(resource: Annotated[str, typer.Argument(help="Patient/id or ImagingStudy/id.")], user: User) -> None:
    """List the legal holds on a patient's record or a study."""
    _print(_client(user), "GET", f"{_resource(resource)}/$legal-hold")


def _decide(decision: str, patient: str, request: str, user: str, note: str) -> None:
    path = f"Patient/{_id(patient)}/$erase-decide"
    _print(_client(user), "POST", path, request=request, decision=decision, note=note)


def _client(user: str) -> BulkClient:
    from foramen.commands.bulk_client import BulkClient

    return BulkClient(get_settings(), _SCOPE, user=user)


def _print(client: BulkClient, method: str, path: str, **values: str | bool | None) -> None:
    """Ask, and print the answer's parameters as JSON that a person can read."""
    from foramen.kernel.fhir_client import error_of

    body = _parameters(**values) if method == "POST" else None
    response = client.http.request(method, client.url(path), json=body)
    if response.status_code >= 400:
        raise error_of(response)
    typer.echo(json.dumps(_plain(response.json().get("parameter", [])), indent=2, ensure_ascii=False))


def _parameters(**values: str | bool | None) -> dict[str, Any]:
    kinds = {bool: "valueBoolean", str: "valueString"}
    parts = [{"name": name, kinds[type(value)]: value} for name, value in values.items() if value is not None]
    return {"resourceType": "Parameters", "parameter": parts}


def _plain(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return parameters as names and values."""
    found = []
    for part in parts:
        value = next((item for name, item in part.items() if name != "name"), None)
        found.append({part["name"]: _plain(value) if isinstance(value, list) else value})
    return found


def _id(patient: str) -> str:
    return patient.removeprefix("Patient/")


def _resource(name: str) -> str:
    if name.partition("/")[0] not in ("Patient", "ImagingStudy") or not name.partition("/")[2]:
        raise typer.BadParameter("name it as Patient/id or ImagingStudy/id")
    return name
