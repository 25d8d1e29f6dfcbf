"""How long studies wait for the models in a whole installation: real archive, record, Task queue and worker.

Part of `foramen bench ai`. Studies are sent by C-STORE at an even pace; times come from the versions of their Tasks.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil

from foramen.commands.bench_ai_figures import FEWEST_FOR_P99, Facts, Figure, Sizes, highest_percentile
from foramen.commands.bench_ai_phantoms import phantoms
from foramen.commands.bench_page import Tell
from foramen.kernel.errors import UpstreamError
from foramen.kernel.settings import Settings, get_settings
from foramen.supervisor.ports import free_port

if TYPE_CHECKING:
    from foramen.demo.studies import DemoStudy

_ISSUER = "DEMO"
_LONGEST_S = 180.0


def queue_figures(sizes: Sizes, facts: Facts, tell: Tell) -> Iterator[Figure]:
    """Waiting and answering times of Tasks while `rate` images a minute arrive, and the worker's memory."""
    count, rate = sizes.queued, sizes.rate
    studies = phantoms(count + 1)
    pause_s = len(studies[0].instances) / rate * 60
    with tempfile.TemporaryDirectory(prefix="foramen-bench-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        home.chmod(0o755)
        tell("  an installation starts")
        with _installation(home) as (settings, process):
            tell(f"  {count} studies, one every {pause_s:.1f} s: {count * pause_s:.0f} s")
            tasks = asyncio.run(_send(settings, studies, pause_s, tell))
            peak_mb = _worker_peak_mb(process)
    waited = [_between(versions, "requested", "in-progress") for versions in tasks]
    answered = [_between(versions, "requested", "completed") for versions in tasks]
    facts["studies"] = (
        f"{count} through the real Task queue, one every {pause_s:.1f} s, after one to warm up; "
        "one worker of two threads beside PostgreSQL, archive and web on the same cores"
    )
    if count < FEWEST_FOR_P99:
        facts["P99"] = (
            f"needs {FEWEST_FOR_P99} studies or more (`--queued {FEWEST_FOR_P99}`: "
            f"{FEWEST_FOR_P99 * pause_s / 60:.0f} minutes of sending); of fewer the highest stands for it"
        )
    for what, values in (("taken", waited), ("answered", answered)):
        which, value = highest_percentile(values)
        yield Figure(f"{rate} images/min, requested to {what}: {which}", "s", value, 8.0, tuple(values))
    yield Figure(f"{rate} images/min, requested to answered: median", "s", statistics.median(answered))
    yield Figure("most memory of the worker", "MB", peak_mb, 1500.0)


@contextmanager
def _installation(home: Path) -> Iterator[tuple[Settings, subprocess.Popen[str]]]:
    """A whole installation of its own, ended afterwards."""
    ports = {name: free_port() for name in ("port", "dicom_port", "dimse_port", "orthanc_http_port")}
    settings = get_settings().model_copy(update={"home": home, "default_patient_id_issuer": _ISSUER, **ports})
    environment = {
        **os.environ,
        **{f"FORAMEN_{name.upper()}": str(port) for name, port in ports.items()},
        "FORAMEN_HOME": str(home),
        "FORAMEN_DEFAULT_PATIENT_ID_ISSUER": _ISSUER,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "foramen", "up"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None  # noqa: S101  PIPE was asked for
    try:
        if not any(line.startswith("ready:") for line in process.stdout):
            raise UpstreamError("The installation did not start")
        yield settings, process
    finally:
        process.terminate()
        process.communicate(timeout=60)


async def _send(
    settings: Settings, studies: Sequence[DemoStudy], pause_s: float, tell: Tell
) -> list[list[dict[str, Any]]]:
    """Send at an even pace; returns the versions of the Task of each study but the first."""
    from foramen.demo.cohort import cohort_bundle, demo_patients
    from foramen.identity.oauth.operator_token import operator_token
    from foramen.ingest.send import send_instances
    from foramen.kernel.database_url import database_url
    from foramen.kernel.fhir_client import FhirClient

    token = operator_token(settings, database_url(settings), "system/*.cruds", expires_in_s=3600)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        record = FhirClient(settings.fhir_base, http)
        people = demo_patients([study.patient_id for study in studies])
        await record.transaction(cohort_bundle(people, datetime.now(UTC).isoformat(timespec="seconds")))
        began = 0.0
        for number, study in enumerate(studies):
            if number:
                await asyncio.sleep(max(0.0, began + (number - 1) * pause_s - time.monotonic()))
            await asyncio.to_thread(
                send_instances, study.instances, settings.host, settings.dicom_port, settings.dicom_aet
            )
            if not number:
                await _answered(record, study)
                began = time.monotonic()
            elif number % 6 == 0:
                tell(f"  {number} of {len(studies) - 1} studies are sent")
        return [await _answered(record, study) for study in studies[1:]]


async def _answered(record: Any, study: DemoStudy) -> list[dict[str, Any]]:
    """All versions of the Task of a study, once it is completed."""
    from terminology import systems

    group = f"{systems.DICOM_UID}|urn:oid:{study.study_instance_uid}"
    deadline = time.monotonic() + _LONGEST_S
    while time.monotonic() < deadline:
        found = await record.search("Task", [("group-identifier", group)])
        if found and found[0]["status"] == "completed":
            history = await record.read(f"Task/{found[0]['id']}/_history?_count=100")
            return [entry["resource"] for entry in history["entry"] if "resource" in entry]
        if found and found[0]["status"] in ("failed", "rejected"):
            raise UpstreamError("A phantom was not analysed")
        await asyncio.sleep(0.5)
    raise UpstreamError("A phantom was not answered in time")


def _between(versions: Sequence[dict[str, Any]], first: str, then: str) -> float:
    """Seconds from the first version in one state to the first in another."""
    return (_instant(versions, then) - _instant(versions, first)).total_seconds()


def _instant(versions: Sequence[dict[str, Any]], status: str) -> datetime:
    return min(datetime.fromisoformat(item["meta"]["lastUpdated"]) for item in versions if item["status"] == status)


def _worker_peak_mb(process: subprocess.Popen[str]) -> float:
    """Most memory that the worker ever held (VmHWM of proc(5))."""
    for child in psutil.Process(process.pid).children(recursive=True):
        if "worker" in child.cmdline():
            status = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii")
            return next(int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmHWM"))
    raise UpstreamError("The worker is not running")
