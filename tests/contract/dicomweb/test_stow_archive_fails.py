"""The archive stops, restarts or is full while instances are stored: what was acknowledged is there, the rest is named.

DICOM PS3.18 §10.5.3
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
from typing import Any

import pytest

from dicomweb.instance_check import FailureReason
from foramen.supervisor.orthanc_config import orthanc_environment, write_orthanc_config
from tests.builders.dicom import Orthanc, series
from tests.contract.dicomweb.conftest import Gateway

pytestmark = pytest.mark.requirement("PS3.18 10.5.3: instances the archive does not take are named, none is lost")


def uids(answer: Any, tag: str) -> set[str]:
    return {item["00081155"]["Value"][0] for item in answer.json().get(tag, {}).get("Value", [])}


async def test_the_archive_is_killed_in_the_middle(gateway: Gateway) -> None:
    datasets = series(240, seed=241, patient_id="SYN-241", size=(64, 64))
    sending = asyncio.create_task(gateway.store(*datasets))
    before = gateway.orthanc.count()
    await gateway.until(lambda: asyncio.to_thread(lambda: gateway.orthanc.count() >= before + 40))
    gateway.orthanc.kill()
    answer = await sending
    gateway.orthanc.start()
    assert answer.status_code == 202
    stored, failed = uids(answer, "00081199"), uids(answer, "00081198")
    assert stored
    assert failed
    assert stored | failed == {dataset.SOPInstanceUID for dataset in datasets}
    reasons = {item["00081197"]["Value"][0] for item in answer.json()["00081198"]["Value"]}
    assert reasons == {FailureReason.PROCESSING_FAILURE}
    study = datasets[0].StudyInstanceUID
    shown = {
        item["00080018"]["Value"][0] for item in (await gateway.get(f"/studies/{study}/instances?limit=1000")).json()
    }
    assert stored <= shown
    path = f"/studies/{study}/series/{datasets[0].SeriesInstanceUID}/instances/"
    for uid in sorted(stored)[-3:]:
        assert (await gateway.get(path + uid)).status_code == 200
    again = await gateway.store(*datasets)
    assert again.status_code == 200
    assert uids(again, "00081199") == {dataset.SOPInstanceUID for dataset in datasets}


async def test_no_archive_at_all(gateway: Gateway) -> None:
    gateway.orthanc.stop()
    try:
        answer = await gateway.store(*series(3, seed=242, patient_id="SYN-242"))
    finally:
        gateway.orthanc.start()
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


def start_without_room(orthanc: Orthanc, largest_bytes: int) -> subprocess.Popen[bytes]:
    """Start the archive so that no file of it can grow beyond a size: to it the disk is full."""
    folder = orthanc.settings.home / "orthanc"
    config = write_orthanc_config(orthanc.settings, folder)
    environment = {**os.environ, **orthanc_environment(orthanc.settings, folder)}

    def limited() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_bytes, largest_bytes))

    log = subprocess.DEVNULL
    return subprocess.Popen(["Orthanc", str(config)], env=environment, stdout=log, stderr=log, preexec_fn=limited)


async def test_the_archives_disk_is_full(gateway: Gateway) -> None:
    gateway.orthanc.stop()
    limit = (
        max(path.stat().st_size for path in (gateway.orthanc.settings.home / "orthanc" / "index").iterdir()) + 262_144
    )
    process = start_without_room(gateway.orthanc, limit)
    try:
        await gateway.until(gateway.service._archive.is_up)
        small = series(1, seed=243, patient_id="SYN-243")
        large = series(1, seed=244, patient_id="SYN-244", size=(2048, 2048))
        assert large[0].Rows * large[0].Columns * 2 > limit
        answer = await gateway.store(*large)
        assert answer.status_code == 503
        assert (await gateway.get(f"/studies/{large[0].StudyInstanceUID}")).status_code == 404
        mixed = await gateway.store(*small, *large)
        assert mixed.status_code == 202
        assert uids(mixed, "00081199") == {small[0].SOPInstanceUID}
        assert uids(mixed, "00081198") == {large[0].SOPInstanceUID}
    finally:
        process.terminate()
        process.wait(15)
        gateway.orthanc.start()
    assert (await gateway.store(*large)).status_code == 200
