"""`foramen demo [--check]`: the whole system with SYNTHETIC data, for people and for scripts."""

from __future__ import annotations

import asyncio
import os
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from foramen.kernel.errors import InteropError
from foramen.kernel.settings import Settings
from foramen.launcher.demonstration import ACCOUNTS, PASSWORD, SURGEON

if TYPE_CHECKING:
    from foramen.demo.studies import DemoStudy

USERNAME = SURGEON.name


def run(settings: Settings, *, check: bool) -> int:
    """Start everything, load the cohort and do the main job; returns the exit status."""
    from foramen.supervisor.supervisor import Supervisor

    # The demonstration's own studies carry their issuer; real series that are dropped in do not.
    os.environ.setdefault("FORAMEN_DEFAULT_PATIENT_ID_ISSUER", "DEMO")
    settings = settings.model_copy(update={"default_patient_id_issuer": "DEMO"})
    os.environ["FORAMEN_DEMO"] = "true"
    os.environ.setdefault("FORAMEN_LAUNCHER", "on")
    supervisor = Supervisor(settings, typer.echo)
    supervisor.start()
    try:
        good = asyncio.run(_fill(supervisor.settings, check=check))
        if check:
            return 0 if good else 1
        typer.echo(f"\nOpen {settings.origin} and sign in as  {USERNAME}  with password  {PASSWORD}")
        typer.echo(f"Launcher (for integrators): {settings.origin}/apps/launcher/")
        typer.echo("Patients and records are SYNTHETIC, images too unless named as real above.")
        typer.echo("Not a registered medical device. Ctrl-C stops.\n")
        supervisor.watch()
        return 0
    finally:
        supervisor.stop()


async def _fill(settings: Settings, *, check: bool) -> bool:
    """Make the account, load the cohort, send the studies; for a check, do the whole job. False when a stage failed."""
    from foramen.demo.cohort import ISSUER, ORGANIZATION, PRACTITIONER
    from foramen.demo.studies import fresh, main_study, phantom_study, vendor_studies
    from foramen.identity.app import ensure_user
    from foramen.identity.oauth.operator_token import operator_token
    from foramen.identity.rights.institutions import ensure_institution
    from foramen.kernel.database_url import database_url

    url = database_url(settings)
    password = secrets.token_urlsafe(12) if check else PASSWORD
    await asyncio.to_thread(ensure_institution, url, ORGANIZATION, "演示医院", "Demo Hospital (SYNTHETIC)")
    await asyncio.to_thread(
        ensure_user, url, USERNAME, password, "physician", f"Practitioner/{PRACTITIONER}", ORGANIZATION
    )
    if not check:
        await asyncio.to_thread(_others, url)
    token = operator_token(settings, url, "system/*.cruds", expires_in_s=3600)
    study = main_study(settings.test_data, ISSUER)
    if check:
        from foramen.demo.journey import Journey, print_table

        salt = secrets.token_hex(8)
        others = [fresh(item, salt) for item in vendor_studies(settings.test_data)]
        await _load_cohort(settings, token, [study, *others])
        journey = Journey(settings, token, USERNAME, password, typer.echo)
        good = await journey.run(fresh(study, salt), others)
        print_table(journey.stages)
        return good
    # The first patient's clinical inputs are complete, the second's are missing; the third is not in the record at all.
    second, unknown = phantom_study(ISSUER, seed=2), phantom_study(ISSUER, seed=3)
    await _load_cohort(settings, token, [study, second])
    for item in (study, second, unknown):
        await _send(settings, item)
    return True


def _others(url: str) -> None:
    """Make the accounts that try launches beside the surgeon, who may do so by a permission of her own."""
    from foramen.identity.app import ensure_user
    from foramen.identity.database import transaction
    from foramen.identity.people.accounts import require_account
    from foramen.identity.rights.permissions import GRANT, change_permission, own_rights
    from foramen.launcher.admission import PERMISSION

    for account in ACCOUNTS:
        if account != SURGEON:
            ensure_user(url, account.name, PASSWORD, account.role)
        with transaction(url) as connection:
            known = require_account(connection, account.name)
            if PERMISSION not in own_rights(connection, known).permissions:
                change_permission(
                    connection, known, PERMISSION, GRANT, reason="demonstration", decided_by="foramen demo"
                )


async def _load_cohort(settings: Settings, token: str, studies: list[DemoStudy]) -> None:
    """Write the cohort in one transaction, with a patient for each study; the first study's patient comes first."""
    import httpx

    from foramen.demo.cohort import cohort_bundle, demo_patients
    from foramen.kernel.fhir_client import FhirClient

    patients = demo_patients([study.patient_id for study in studies])
    authored = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        await FhirClient(settings.fhir_base, http).transaction(cohort_bundle(patients, authored))
    typer.echo(f"  cohort     {len(patients)} SYNTHETIC patients")


async def _send(settings: Settings, study: DemoStudy) -> None:
    from foramen.ingest.send import send_instances

    typer.echo(f"  study      sending {len(study.instances)} instances: {study.name}")
    outcomes = await asyncio.to_thread(
        send_instances, study.instances, settings.host, settings.dicom_port, settings.dicom_aet
    )
    if not all(outcome.stored for outcome in outcomes):
        raise InteropError("The demo study was not stored; see the log of orthanc")
