"""`foramen demo [--check]`: the whole system with SYNTHETIC data, for people and for scripts."""

from __future__ import annotations

import asyncio
import os
import secrets
from datetime import UTC, datetime

import httpx
import typer

from foramen.kernel.errors import InteropError
from foramen.kernel.settings import Settings

USERNAME = "surgeon"
PASSWORD = "foramen-demo"  # noqa: S105  the demonstration's own, printed on the screen; no other mode has a default


def run(settings: Settings, *, check: bool) -> int:
    """Start everything, load the cohort and do the main job; returns the exit status."""
    from foramen.supervisor.supervisor import Supervisor

    # The demonstration's own studies carry their issuer; real series that are dropped in do not.
    os.environ.setdefault("FORAMEN_DEFAULT_PATIENT_ID_ISSUER", "DEMO")
    settings = settings.model_copy(update={"default_patient_id_issuer": "DEMO"})
    supervisor = Supervisor(settings, typer.echo)
    supervisor.start()
    try:
        good = asyncio.run(_fill(supervisor.settings, check=check))
        if check:
            return 0 if good else 1
        typer.echo(f"\nOpen {settings.origin} and sign in as  {USERNAME}  with password  {PASSWORD}")
        typer.echo("Everything shown is SYNTHETIC. Not a registered medical device. Ctrl-C stops.\n")
        supervisor.watch()
        return 0
    finally:
        supervisor.stop()


async def _fill(settings: Settings, *, check: bool) -> bool:
    """Make the account, load the cohort, send the studies."""
    from foramen.demo.cohort import ISSUER, ORGANIZATION, PRACTITIONER, cohort_bundle, demo_patients
    from foramen.demo.journey import Journey, print_table
    from foramen.demo.studies import main_study, vendor_studies
    from foramen.identity.app import ensure_user
    from foramen.identity.operator_token import operator_token
    from foramen.ingest.send import send_instances
    from foramen.kernel.database_url import database_url
    from foramen.kernel.fhir_client import FhirClient

    url = database_url(settings)
    password = secrets.token_urlsafe(12) if check else PASSWORD
    await asyncio.to_thread(
        ensure_user, url, USERNAME, password, "physician", f"Practitioner/{PRACTITIONER}", ORGANIZATION
    )
    token = operator_token(settings, url, "system/*.cruds", expires_in_s=3600)
    study = main_study(settings.test_data, ISSUER)
    others = vendor_studies(settings.test_data) if check else []
    # The main study's patient comes first: that one has complete clinical inputs.
    patients = demo_patients([study.patient_id, *(item.patient_id for item in others)])
    authored = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers, timeout=60) as http:
        await FhirClient(settings.fhir_base, http).transaction(cohort_bundle(patients, authored))
    typer.echo(f"  cohort     {len(patients)} SYNTHETIC patients")
    if check:
        journey = Journey(settings, token, USERNAME, password, typer.echo)
        good = await journey.run(study, others)
        print_table(journey.stages)
        return good
    typer.echo(f"  study      sending {len(study.instances)} instances: {study.name}")
    outcomes = await asyncio.to_thread(
        send_instances, study.instances, settings.host, settings.dicom_port, settings.dicom_aet
    )
    if not all(outcome.stored for outcome in outcomes):
        raise InteropError("The demo study was not stored; see the log of orthanc")
    return True
