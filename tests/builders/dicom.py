"""SYNTHETIC DICOM: seeded lumbar-like series, single instances, files broken on purpose, and a private Orthanc."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from pydicom import Dataset, dcmwrite

from foramen.ingest.sidecar import Sidecar
from foramen.ingest.wrap import wrap_volume
from foramen.kernel.secret_files import read_or_create_secret
from foramen.kernel.settings import Settings
from foramen.supervisor.orthanc_config import orthanc_environment, write_orthanc_config
from foramen.supervisor.ports import free_port

BOUNDARY = "test-boundary"
MULTIPART = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


def sidecar(**changes: Any) -> Sidecar:
    """A SYNTHETIC patient's sidecar."""
    values: dict[str, Any] = {
        "patient_id": "SYN-1",
        "issuer": "DEMO",
        "patient_name": "SYNTHETIC^ONE",
        "study_description": "Lumbar spine MR SYNTHETIC",
        "series_description": "T2 sag SYNTHETIC",
        "pixel_spacing_mm": (0.5, 0.6),
        "slice_spacing_mm": 4.0,
        "study_date": "20260105",
        "echo_time_ms": 100,
    }
    return Sidecar(**values | changes)


def series(
    slices: int = 3, *, seed: int = 1, size: tuple[int, int] = (16, 12), depth: str = "uint16", **changes: Any
) -> list[Dataset]:
    """A SYNTHETIC sagittal MR series of noise; the same seed gives the same UIDs and bytes."""
    top = 255 if depth == "uint8" else 4095
    volume = np.random.default_rng(seed).integers(0, top, (slices, *size)).astype(depth)
    return wrap_volume(volume, sidecar(**changes))


def encoded(dataset: Dataset) -> bytes:
    """A dataset as a DICOM file."""
    target = BytesIO()
    dcmwrite(target, dataset, enforce_file_format=True)
    return target.getvalue()


def multipart(*parts: bytes, content_type: str = "application/dicom") -> bytes:
    """A multipart/related body with the boundary of `MULTIPART`."""
    body = b"".join(f"\r\n--{BOUNDARY}\r\nContent-Type: {content_type}\r\n\r\n".encode() + part for part in parts)
    return body + f"\r\n--{BOUNDARY}--\r\n".encode()


class Orthanc:
    """A private Orthanc on free ports, started and stopped by a test."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._folder = settings.home / "orthanc"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers."""
        config = write_orthanc_config(self.settings, self._folder)
        environment = {**os.environ, **orthanc_environment(self.settings, self._folder)}
        with (self.settings.home / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["Orthanc", str(config)], env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + 30
        with self.client() as client:
            while time.monotonic() < deadline:
                assert self._process.poll() is None, "Orthanc ended; see orthanc.log"
                with contextlib.suppress(httpx.HTTPError):
                    if client.get("/system").status_code == 200:
                        return
                time.sleep(0.05)
        raise AssertionError("Orthanc does not answer")

    def stop(self) -> None:
        """SIGTERM, or SIGKILL when it hangs."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """SIGKILL: what a power cut looks like."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def client(self) -> httpx.Client:
        """REST client with the private password."""
        password = read_or_create_secret(self.settings.home, "orthanc")
        return httpx.Client(
            base_url=self.settings.archive_url, auth=(self.settings.orthanc_username, password), timeout=10
        )

    def count(self) -> int:
        """Number of stored instances."""
        with self.client() as client:
            return int(client.get("/statistics").json()["CountInstances"])


@contextlib.contextmanager
def private_orthanc(home: Path, **changes: Any) -> Iterator[Orthanc]:
    """Run an Orthanc for a while; `changes` are settings."""
    values: dict[str, Any] = {"stable_study_s": 1, "orthanc_http_port": free_port(), "dicom_port": free_port()}
    orthanc = Orthanc(Settings(home=home, **values | changes))
    orthanc.start()
    try:
        yield orthanc
    finally:
        orthanc.stop()
