"""A private Foramen with its own Orthanc for `foramen bench dicomweb`, and the clients that ask both alike."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg

from foramen.commands.bench_dicomweb_data import ROOT, ct_study
from foramen.kernel.errors import UpstreamError
from foramen.kernel.secret_files import read_or_create_secret
from foramen.kernel.settings import Settings, get_settings
from foramen.supervisor.ports import free_port

_BOUNDARY = "foramen-bench"
_BATCH = 20
_SCOPES = "system/ImagingStudy.crus"
_OWN = {"default_patient_id_issuer": "DEMO", "stable_study_s": 1}


@dataclass
class Bench:
    """A running system.

    Parameters
    ----------
    ours, theirs : clients of Foramen's and of Orthanc's DICOMweb, each with one connection
    study : UID of the stored study, with `instances` slices of `size` pixels an edge in series of `per_series`
    """

    settings: Settings
    database_url: str
    ours: httpx.Client
    theirs: httpx.Client
    study: str
    instances: int
    per_series: int
    repeats: int
    size: int = 512
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def series(self) -> str:
        """UID of the first series."""
        return f"{self.study}.1"

    @contextmanager
    def database(self) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        """Lend a connection of its own to the system's database."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            yield connection


def seconds(work: Callable[[], object]) -> float:
    """Return how long a piece of work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def settle(bench: Bench) -> None:
    """Wait until what was stored is registered: else that work of one turn would slow down the next.

    Raises
    ------
    UpstreamError
        It is not registered in a minute.
    """
    time.sleep(bench.settings.stable_study_s + 1.5)
    with bench.database() as connection:
        for _ in range(600):
            if connection.execute("SELECT count(*) FROM dicomweb.arrival").fetchone() == (0,):
                return
            time.sleep(0.1)
    raise UpstreamError("What was stored is not registered")


@contextmanager
def running(folder: Path, instances: int, per_series: int, size: int, repeats: int) -> Iterator[Bench]:
    """Start a system, store the SYNTHETIC study in it by STOW-RS, and stop it again."""
    from foramen.identity.oauth.operator_token import operator_token
    from foramen.kernel.database_url import database_url
    from foramen.kernel.embedded_postgres import stop_postgres

    ports = {name: free_port() for name in ("port", "dicom_port", "orthanc_http_port", "dimse_port")}
    settings = get_settings().model_copy(update={"home": folder, **_OWN, **ports})
    environment = os.environ | {"FORAMEN_HOME": str(folder)}
    environment |= {f"FORAMEN_{name.upper()}": str(value) for name, value in {**_OWN, **ports}.items()}
    # Rows without files behind them (`growth`) would be taken for images lost in the archive.
    environment["FORAMEN_RECONCILE_EVERY_S"] = str(7 * 24 * 3600)
    environment["FORAMEN_ORTHANC_COMPARES"] = "0"  # Orthanc's own rate without what we add to it
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "foramen", "up"], env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        _await_ready(process)
        url = database_url(settings)
        token = operator_token(settings, url, _SCOPES, expires_in_s=86_400)
        password = read_or_create_secret(settings.home, "orthanc")
        limits = httpx.Limits(max_connections=1)
        ours = httpx.Client(
            base_url=f"{settings.origin}/dicom-web", headers={"Authorization": f"Bearer {token}"},
            timeout=120, limits=limits, trust_env=False,
        )  # fmt: skip
        theirs = httpx.Client(
            base_url=f"{settings.archive_url}/dicom-web", auth=(settings.orthanc_username, password),
            timeout=120, limits=limits, trust_env=False,
        )  # fmt: skip
        with ours, theirs:
            bench = Bench(settings, url, ours, theirs, f"{ROOT}.1", instances, per_series, repeats, size)
            _store(bench, size)
            yield bench
    finally:
        process.terminate()
        process.communicate(timeout=90)
        stop_postgres(folder / "postgres")


def _await_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None  # noqa: S101  PIPE was asked for
    for line in process.stdout:
        if line.startswith("ready:"):
            return
    raise RuntimeError("the system did not start")


def _store(bench: Bench, size: int) -> None:
    batch: list[bytes] = []
    for content in ct_study(bench.study, bench.instances, bench.per_series, size):
        batch.append(content)
        if len(batch) == _BATCH:
            _post(bench, batch)
            batch = []
    if batch:
        _post(bench, batch)


def _post(bench: Bench, parts: list[bytes]) -> None:
    head = f"\r\n--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"".join(head + part for part in parts) + f"\r\n--{_BOUNDARY}--\r\n".encode()
    content_type = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'
    answer = bench.ours.post("/studies", content=body, headers={"Content-Type": content_type})
    if answer.status_code != 200:
        raise RuntimeError(f"STOW-RS answered {answer.status_code}")
