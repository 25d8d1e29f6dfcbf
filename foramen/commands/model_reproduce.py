"""`foramen model reproduce PROVENANCE-ID`: do a run again and say whether it says the same.

Exit 0: the same. 1: different. 2: cannot be done again, with the reason.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ai_services.models.registry import Manifest
    from ai_services.results.reproduce import Outcome
    from ai_services.results.run_record import RunRecord

_SCOPE = "system/*.rs"
_TOKEN_S = 900


def reproduce(
    provenance_id: Annotated[str, typer.Argument(help="Logical id of the run's Provenance.")],
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="How far numbers may differ, in their own unit; masks and codes may not.")
    ] = 0.002,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything that was compared here.")] = None,
) -> None:
    """Run again what a Provenance records, on the same images by the same version, and compare every value."""
    from ai_services.results.reproduce import SAME, CannotError
    from foramen.kernel.errors import InteropError

    provenance_id = provenance_id.removeprefix("Provenance/")
    try:
        outcome = _reproduced(provenance_id, tolerance)
    except (CannotError, InteropError) as reason:
        text = reason.message if isinstance(reason, InteropError) else str(reason)
        _write(json_file, {"provenance": provenance_id, "verdict": "cannot", "reason": text})
        typer.echo(f"cannot: {text}")
        raise typer.Exit(2) from reason
    _write(json_file, {"provenance": provenance_id, "tolerance": tolerance, **asdict(outcome)})
    _tell(outcome, tolerance)
    if outcome.verdict != SAME:
        raise typer.Exit(1)


def _reproduced(provenance_id: str, tolerance: float) -> Outcome:
    """Ask record and archive with a reading token of the operator; nothing is written."""
    import asyncio

    import httpx

    from ai_services.results.reproduce import reproduce as again
    from ai_services.workflow.dicom_access import DicomAccess
    from ai_services.workflow.pipelines import run_pipeline
    from foramen.identity.oauth.operator_token import operator_token
    from foramen.kernel.database_url import database_url
    from foramen.kernel.fhir_client import FhirClient
    from foramen.kernel.settings import get_settings

    settings = get_settings()
    token = operator_token(settings, database_url(settings), _SCOPE, expires_in_s=_TOKEN_S)
    pixels = DicomAccess(f"{settings.internal_origin}/dicom-web", lambda: f"Bearer {token}")

    async def work() -> Outcome:
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(headers=headers, timeout=60, trust_env=False) as http:
            fhir = FhirClient(f"{settings.internal_origin}/fhir", http)
            return await again(fhir.read, pixels, provenance_id, _version, run_pipeline, tolerance)

    return asyncio.run(work())


def _version(record: RunRecord) -> Manifest:
    """The recorded version, checked: what the software comes with, or of the registry; the device is set as it was."""
    from ai_services.models.registry import load_manifest
    from ai_services.models.runtime import ModelIntegrityError, configure
    from ai_services.models.stages import StageError
    from ai_services.models.versions import ModelRegistry
    from ai_services.results.reproduce import CannotError, execution_of
    from foramen.kernel.database_url import database_url
    from foramen.kernel.settings import get_settings

    settings = get_settings()
    configure(execution_of(record))
    try:
        comes_with = load_manifest(record.pipeline)
        if comes_with.digest == record.manifest_sha256:
            return comes_with
        registry = ModelRegistry(database_url(settings), settings.home)
        found = registry.version(record.pipeline, record.version)
        if found.digest == record.manifest_sha256:
            return registry.open(found)
    except ModelIntegrityError as exc:
        raise CannotError(f"version {record.version} is not what was registered: {exc}") from exc
    except (KeyError, StageError) as exc:
        raise CannotError(f"version {record.version} of {record.pipeline} is not on this installation") from exc
    raise CannotError(f"version {record.version} of {record.pipeline} here is another package than the one recorded")


def _tell(outcome: Outcome, tolerance: float) -> None:
    typer.echo(
        f"{outcome.verdict}: version {outcome.version}, {outcome.images} images, {len(outcome.segments)} segments, "
        f"{outcome.findings} findings; numbers within {tolerance:g}"
    )
    typer.echo(f"mask {'identical' if outcome.mask_identical else 'not identical'} to the one recorded (SHA-256)")
    table = Table("segment", "Dice", "voxels then", "now")
    for item in outcome.segments:
        table.add_row(item.name, f"{item.dice:.6f}", str(item.voxels_then), str(item.voxels_now))
    console = Console()
    console.print(table)
    for difference in outcome.differences:
        console.print(f"{difference.what}: was {difference.then}, is {difference.now}", markup=False, highlight=False)
    for note in outcome.notes:
        console.print(f"note: {note}", markup=False, highlight=False)


def _write(path: Path | None, document: dict[str, object]) -> None:
    if path is not None:
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
