"""`foramen register CT-STUDY MR-STUDY`: MR and CT of one patient on one another, with quality, or a refusal.

Stages 4 to 6; docs/how-to/register_mr_and_ct.md. Exit status: 0 registered, 1 refused with a reason, 2 could not look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from foramen.commands.research_access import looking
from foramen.kernel.settings import Settings, get_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ai_services.models.registry import Manifest
    from ai_services.registration.run import Asked, Pair

_SCOPES = "system/Patient.rs system/ImagingStudy.crus system/Observation.crs system/Device.crs system/Provenance.crs"
_TOKEN_S = 3600


def register(
    ct_study: Annotated[str, typer.Argument(help="Study Instance UID of the CT.")],
    mr_study: Annotated[str | None, typer.Argument(help="Of the MR; without it the same study holds both.")] = None,
    ct_series: Annotated[str | None, typer.Option(help="Series Instance UID, not the one chosen by rule.")] = None,
    mr_series: Annotated[str | None, typer.Option(help="Series Instance UID, not the one chosen by rule.")] = None,
    user: Annotated[
        str | None, typer.Option(help="Account to act as: it reaches its institution, and stands in the audit trail.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell the quality; nothing is stored.")] = False,
    ct_version: Annotated[
        str | None, typer.Option(help="With --dry-run: a registered CT version, for example the candidate.")
    ] = None,
) -> None:
    """Register MR to CT of one patient and store a DICOM Spatial Registration with its quality."""
    import asyncio

    from ai_services.prediction import PipelineError
    from ai_services.registration.run import Asked

    if ct_version is not None and not dry_run:
        raise typer.BadParameter("--ct-version goes with --dry-run: only a released version speaks")
    asked = Asked(ct_study, ct_series), Asked(mr_study or ct_study, mr_series)
    settings = get_settings()
    try:
        with looking():
            versions = _versions(settings, ct_version)
            asyncio.run(_work(settings, asked, versions, user, store_it=not dry_run))
    except PipelineError as refused:
        typer.echo(f"{refused.reason_code}: {refused.text_en} · {refused.text_zh}", err=True)
        raise typer.Exit(2 if refused.retryable else 1) from refused


async def _work(
    settings: Settings,
    asked: tuple[Asked, Asked],
    versions: Mapping[str, Manifest],
    user: str | None,
    *,
    store_it: bool,
) -> None:
    import asyncio

    import httpx

    from ai_services.registration.run import register_studies, store, studies_of
    from ai_services.workflow.dicom_access import DicomAccess
    from foramen.identity.oauth.operator_token import operator_token
    from foramen.kernel.database_url import database_url
    from foramen.kernel.fhir_client import FhirClient

    token = operator_token(settings, database_url(settings), _SCOPES, expires_in_s=_TOKEN_S, user=user)
    archive = DicomAccess(f"{settings.internal_origin}/dicom-web", lambda: f"Bearer {token}")
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers, timeout=60, trust_env=False) as http:
        fhir = FhirClient(f"{settings.internal_origin}/fhir", http)
        studies = await studies_of(fhir, *asked)
        with Console(stderr=True).status("register"):
            pair = await asyncio.to_thread(register_studies, studies, archive, asked, versions)
        _tell(pair)
        if not store_it:
            typer.echo("dry run: nothing is stored")
            return
        reference, uid = await store(fhir, archive, pair)
    typer.echo(f"{reference} and Spatial Registration {uid} stored, unverified")


def _versions(settings: Settings, ct_version: str | None) -> dict[str, Manifest]:
    """The releases that speak, or for a dry run the CT version that was asked for.

    Raises
    ------
    PipelineError
        ``ct-not-released``, ``no-model-released``, ``model-integrity``.
    """
    from ai_services.imaging.refusal import refusal
    from ai_services.models.runtime import ModelIntegrityError
    from ai_services.models.stages import Stage, StageError
    from ai_services.models.versions import ModelRegistry
    from ai_services.workflow.pipelines import CT, MR
    from foramen.kernel.database_url import database_url

    registry = ModelRegistry(database_url(settings), settings.home)
    try:
        ct = registry.version(CT, ct_version) if ct_version is not None else registry.current(CT)
    except StageError as refused:
        raise typer.BadParameter(str(refused), param_hint="--ct-version") from refused
    if ct is not None and ct.stage is Stage.RECALLED:
        raise typer.BadParameter("this version was recalled and speaks never again", param_hint="--ct-version")
    if ct is None:
        raise refusal("ct-not-released")
    mr = registry.current(MR)
    if mr is None:
        raise refusal("no-model-released")
    try:
        return {CT: registry.open(ct), MR: registry.open(mr)}
    except ModelIntegrityError as exc:
        raise refusal("model-integrity", str(exc)) from exc


def _tell(pair: Pair) -> None:
    from ai_services.registration import quality as limits

    found = pair.registration.quality
    table = Table("measure", "value", "accepted")
    rows = (
        ("surfaces of vertebrae, worst", found.surface_mm, "mm", f"≤ {limits.LARGEST_SURFACE_MM:.1f} mm"),
        ("overlap (Dice)", found.overlap, "", f"≥ {limits.LEAST_OVERLAP:.2f}"),
        ("centroids, root mean square", found.landmark_mm, "mm", f"≤ {limits.LARGEST_LANDMARK_MM:.1f} mm"),
        ("results of different starts", found.spread_mm, "mm", f"≤ {limits.LARGEST_SPREAD_MM:.1f} mm"),
    )
    for name, value, unit, limit in rows:
        table.add_row(name, "–" if value is None else f"{value:.2f} {unit}".strip(), limit)
    table.add_row("vertebrae in common", str(found.vertebrae), f"≥ {limits.FEWEST_VERTEBRAE}")
    table.add_row("turned by", f"{pair.registration.transform.angle_deg():.1f}°", "")
    Console().print(table)
