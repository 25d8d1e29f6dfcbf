"""`foramen bench spine`: the spine's speed goals, measured on a fresh installation of its own.

Start-up, memory before the first study, first page, stored-to-report, model seconds.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import typer

from foramen.commands.bench_page import HISTORY, remember, show
from foramen.kernel.settings import Settings, get_settings
from foramen.supervisor.ports import free_port

_GOALS = {
    "start of a prepared home, s": 10.0,
    "web, worker and DIMSE process resident before the first study, MB": 300.0,
    "first page, s": 1.0,
    "stored to report beyond the stable wait, s": 15.0,
    "segmentation + grading, s": 5.0,
}


def run(repeats: int = 3) -> None:
    """Measure, print the table with goals and add a line to the history."""
    with tempfile.TemporaryDirectory(prefix="foramen-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        figures = _measure(Path(folder), repeats)
    rows = [
        (name, f"{value:.2f}", f"{_GOALS[name]:g}", f"{value / _GOALS[name]:.2f}") for name, value in figures.items()
    ]
    show("foramen bench spine", ("what", "median", "goal", "ratio to goal"), rows)
    remember("spine", {"figures": {name: round(value, 3) for name, value in figures.items()}}, HISTORY)


def _measure(home: Path, repeats: int) -> dict[str, float]:
    settings = get_settings().model_copy(
        update={
            "home": home,
            "port": free_port(),
            "dicom_port": free_port(),
            "orthanc_http_port": free_port(),
            "default_patient_id_issuer": "DEMO",
        }
    )
    first, _ = _start(settings)
    _stop(first)
    starts, process = [], first
    for _ in range(repeats):
        process, seconds = _start(settings)
        starts.append(seconds)
        if len(starts) < repeats:
            _stop(process)
    try:
        time.sleep(2)
        resident = _resident_mb(process)
        page = statistics.median(_timed(f"{settings.origin}/") for _ in range(20))
        reports = asyncio.run(_studies(settings, repeats))
    finally:
        _stop(process)
    return {
        "start of a prepared home, s": statistics.median(starts),
        "web, worker and DIMSE process resident before the first study, MB": resident,
        "first page, s": page,
        "stored to report beyond the stable wait, s": statistics.median(reports),
        "segmentation + grading, s": statistics.median(_model_seconds(repeats)),
    }


def _start(settings: Settings) -> tuple[subprocess.Popen[str], float]:
    environment = {
        **os.environ,
        "FORAMEN_HOME": str(settings.home),
        "FORAMEN_PORT": str(settings.port),
        "FORAMEN_DICOM_PORT": str(settings.dicom_port),
        "FORAMEN_ORTHANC_HTTP_PORT": str(settings.orthanc_http_port),
        "FORAMEN_DEFAULT_PATIENT_ID_ISSUER": "DEMO",
    }
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "foramen", "up"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None  # noqa: S101  PIPE was asked for
    for line in process.stdout:
        if line.startswith("ready:"):
            return process, time.monotonic() - began
    raise typer.Exit(1)


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate(timeout=60)


def _resident_mb(process: subprocess.Popen[str]) -> float:
    wanted = ("serve", "worker")
    children = psutil.Process(process.pid).children(recursive=True)
    roots = [child for child in children if set(wanted) & set(child.cmdline())]
    family = {member for root in roots for member in (root, *root.children(recursive=True))}
    return sum(member.memory_info().rss for member in family) / 2**20


def _timed(url: str) -> float:
    began = time.perf_counter()
    httpx.get(url, follow_redirects=True).raise_for_status()
    return time.perf_counter() - began


async def _studies(settings: Settings, repeats: int) -> list[float]:
    """Send studies of different patients; returns seconds from the last instance to the report, beyond the wait."""
    from foramen.demo.cohort import ISSUER, cohort_bundle, demo_patients
    from foramen.demo.studies import phantom_study
    from foramen.identity.oauth.operator_token import operator_token
    from foramen.ingest.send import send_instances
    from foramen.kernel.database_url import database_url
    from foramen.kernel.fhir_client import FhirClient
    from terminology import systems

    token = operator_token(settings, database_url(settings), "system/*.cruds", expires_in_s=3600)
    studies = [phantom_study(ISSUER, seed) for seed in range(repeats)]
    reports = []
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        record = FhirClient(settings.fhir_base, http)
        people = demo_patients([study.patient_id for study in studies])
        await record.transaction(cohort_bundle(people, datetime.now(UTC).isoformat(timespec="seconds")))
        for study in studies:
            await asyncio.to_thread(
                send_instances, study.instances, settings.host, settings.dicom_port, settings.dicom_aet
            )
            stored = time.monotonic()
            found: list[dict[str, Any]] = []
            while not found:
                await asyncio.sleep(0.1)
                patient = f"{systems.IDENTIFIER_PATIENT}/{ISSUER}|{study.patient_id}"
                found = await record.search("DiagnosticReport", [("subject:Patient.identifier", patient)])
                if time.monotonic() - stored > 120:
                    raise typer.Exit(1)
            reports.append(time.monotonic() - stored - settings.stable_study_s)
    return reports


def _model_seconds(repeats: int) -> list[float]:
    """Seconds of the pipeline in this process on the phantom, the first (cold) run left out."""
    from ai_services.pipelines.lumbar_mr.pipeline import run as run_pipeline
    from foramen.demo.cohort import ISSUER
    from foramen.demo.studies import phantom_study

    study = phantom_study(ISSUER, seed=0)
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        run_pipeline(study.instances)
        seconds.append(time.perf_counter() - began)
    return seconds[1:]
