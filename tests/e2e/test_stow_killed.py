"""The web process is killed under a load of STOW requests: whatever it acknowledged is there, and can be sent again.

And in the middle of a deletion: it is finished at the next start, and takes nothing else along.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from foramen.kernel.embedded_postgres import stop_postgres
from tests.builders.dicom import MULTIPART, encoded, multipart, series
from tests.builders.system import System, said, wait_for
from tests.e2e.conftest import new_system

pytestmark = pytest.mark.system
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'


@pytest.fixture(scope="module")
def own_system() -> Iterator[System]:
    """An installation whose web process these tests kill."""
    running = new_system()
    running.start()
    yield running
    running.stop()
    stop_postgres(running.home / "postgres")


@pytest.mark.requirement("PS3.18 10.5.3: no acknowledged instance is lost when the server is killed")
def test_everything_acknowledged_is_there(own_system: System) -> None:
    datasets = [
        one for seed in range(6) for one in series(20, seed=900 + seed, patient_id=f"SYN-9{seed}0", size=(64, 64))
    ]
    bodies = [(one, multipart(encoded(one))) for one in datasets]
    acknowledged: dict[str, str] = {}
    enough, killed = threading.Event(), threading.Event()

    def send(piece: int) -> None:
        with own_system.client() as client:
            for one, body in bodies[piece::6]:
                try:
                    answer = client.post("/dicom-web/studies", content=body, headers={"Content-Type": MULTIPART})
                except httpx.HTTPError:
                    killed.set()
                    return
                if answer.status_code == 200:
                    item = answer.json()["00081199"]["Value"][0]
                    acknowledged[one.SOPInstanceUID] = item["00081190"]["Value"][0]
                if len(acknowledged) >= 25:
                    enough.set()

    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(send, piece) for piece in range(6)]
        assert enough.wait(60)
        os.kill(own_system.pid_of("web"), signal.SIGKILL)
        for one in running:
            one.result(60)
    assert killed.is_set()
    assert 25 <= len(acknowledged) < len(datasets)
    wait_for(lambda: said(own_system, r"web +ready again"), 60)
    with own_system.client() as client:
        for uid, url in acknowledged.items():
            study = url.partition("/studies/")[2].partition("/")[0]
            found = client.get(f"/dicom-web/studies/{study}/instances?SOPInstanceUID={uid}")
            assert len(found.json()) == 1
        for url in list(acknowledged.values())[-5:]:
            assert client.get(httpx.URL(url).raw_path.decode()).status_code == 200
        everything = multipart(*(encoded(one) for one in datasets))
        again = client.post("/dicom-web/studies", content=everything, headers={"Content-Type": MULTIPART}, timeout=120)
        assert again.status_code == 200
        assert len(again.json()["00081199"]["Value"]) == len(datasets)


def files_in_archive(system: System, study: str) -> int:
    """How many instances of a study Orthanc has, asked past the gateway."""
    password = (system.home / "secrets" / "orthanc").read_text(encoding="utf-8").strip()
    with httpx.Client(base_url=f"http://127.0.0.1:{system.orthanc_port}", auth=("foramen", password)) as client:
        question = {"Level": "Instance", "Query": {"StudyInstanceUID": study}}
        return len(client.post("/tools/find", json=question).json())


@pytest.mark.requirement("IHE RAD TF-1 30: a deletion that was begun is finished, and takes nothing else along")
def test_a_killed_deletion_is_finished_by_the_next_start(own_system: System) -> None:
    kept, mine = (
        series(count, seed=seed, patient_id="SYN-990", size=(64, 64), study_key=str(seed), study_date="19900102")
        for count, seed in ((3, 990), (60, 991))
    )
    study, other = str(mine[0].StudyInstanceUID), str(kept[0].StudyInstanceUID)
    assert study != other
    own_system.lines.clear()
    with own_system.client() as client, ThreadPoolExecutor(1) as pool:
        body = multipart(*(encoded(one) for one in (*mine, *kept)))
        sent = client.post("/dicom-web/studies", content=body, headers={"Content-Type": MULTIPART}, timeout=120)
        assert sent.status_code == 200
        deleting = pool.submit(client.delete, f"/dicom-web/studies/{study}?reject=113039^DCM", timeout=120)
        deadline = time.monotonic() + 60
        while (left := files_in_archive(own_system, study)) >= len(mine):  # The note of it comes first.
            assert time.monotonic() < deadline
        os.kill(own_system.pid_of("web"), signal.SIGKILL)
        assert isinstance(deleting.exception(60), httpx.HTTPError)  # Killed before it answered.
        assert 0 < left < len(mine)
    wait_for(lambda: said(own_system, r"web +ready again"), 60)
    wait_for(lambda: files_in_archive(own_system, study) == 0, 60)
    with own_system.client() as client:

        def is_done() -> bool:
            return client.get(f"/dicom-web/rejections?StudyInstanceUID={study}").json() == []

        wait_for(is_done, 60)
        assert client.get(f"/dicom-web/studies/{study}").status_code == 404
        assert len(client.get(f"/dicom-web/studies/{other}/instances").json()) == len(kept)
        whole = client.get(f"/dicom-web/studies/{other}", headers={"Accept": AS_STORED})
        assert (whole.status_code, whole.content.count(b"DICM")) == (200, len(kept))
    assert files_in_archive(own_system, other) == len(kept)
