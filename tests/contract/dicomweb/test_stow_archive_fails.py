"""The archive stops, restarts or is full while instances are stored: what was acknowledged is there, the rest is named.

DICOM PS3.18 §10.5.3
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from dicomweb.archive_writer import ArchiveWriter
from dicomweb.dimse.newcomers import Newcomers
from dicomweb.instance_check import FailureReason
from dicomweb.multipart import Spool
from foramen.kernel.secret_files import read_or_create_secret
from foramen.supervisor.orthanc_config import orthanc_environment, write_orthanc_config
from tests.builders.dicom import MULTIPART, Orthanc, encoded, multipart, series
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import WRITE, Gateway

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
    assert again.status_code == 200, again.json().get("00081198")
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


async def test_there_is_no_room_to_receive(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of this process cannot grow: to the spool the disk is full. Audited, nothing kept, and later it goes."""
    monkeypatch.setattr(Spool.__init__, "__defaults__", (64 * 1024,))
    large = series(1, seed=245, patient_id="SYN-245", size=(1200, 1200))
    before = gateway.orthanc.count()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    trace = "5" * 32
    headers = bearer(WRITE) | {"Content-Type": MULTIPART, "traceparent": f"00-{trace}-{'1' * 16}-01"}
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        answer = await gateway.http.post("/studies", content=multipart(*map(encoded, large)), headers=headers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (503, "no-store")
    assert "retry-after" in answer.headers
    assert gateway.orthanc.count() == before
    assert await gateway.until(lambda: gateway.audit_events(trace))
    assert (await gateway.store(*large)).status_code == 200


def _until(true: Callable[[], bool]) -> None:
    for _ in range(100):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("It does not come true")


def test_what_came_by_another_door_is_looked_for_and_nothing_else_is(gateway: Gateway) -> None:
    """The AE port asks the archive for a UID only where the archive may hold what the index does not know."""
    settings, known = gateway.orthanc.settings, gateway.orthanc.count()
    password = read_or_create_secret(settings.home, "orthanc")
    archive = ArchiveWriter(settings.archive_url, settings.orthanc_username, password)
    unsure = Newcomers(archive, lambda: known - 1)
    assert unsure.may_hold("1.2.3")  # index and archive differ: whatever comes has to be asked for
    assert unsure.may_hold("1.2.3")
    newcomers = Newcomers(archive, lambda: known)
    assert newcomers.may_hold("1.2.3")  # nothing is known before the first look
    assert not newcomers.may_hold("1.2.3")
    strange, own = (encoded(one) for one in series(2, seed=246, patient_id="SYN-246"))
    uids = [str(dcmread(BytesIO(one)).SOPInstanceUID) for one in (strange, own)]
    with gateway.orthanc.client() as client:
        assert client.post("/instances", content=strange).status_code == 200
    _until(lambda: newcomers.may_hold(uids[0]))
    stored = archive.store(own)
    assert stored is not None
    newcomers.stored(stored[0], uids[1])
    assert newcomers.may_hold(uids[1])  # the index may not have it yet
    time.sleep(0.3)
    assert not newcomers.may_hold("1.2.3")
    archive.close()


def test_idle_associations_do_not_hold_up_others(gateway: Gateway) -> None:
    """Orthanc serves associations by few threads, and waits a second for each that is silent."""
    settings = gateway.orthanc.settings
    caller = AE(ae_title="SYN-IDLE")
    caller.add_requested_context(Verification)
    caller.acse_timeout = caller.dimse_timeout = caller.network_timeout = 60
    held = [caller.associate("127.0.0.1", settings.dicom_port, ae_title=settings.dicom_aet) for _ in range(9)]
    assert all(one.is_established for one in held)
    began = time.monotonic()
    for _ in range(5):
        assert held[-1].send_c_echo().Status == 0
    assert time.monotonic() - began < 4
    for one in held:
        one.release()
