"""The web process is killed under a load of STOW requests: whatever it acknowledged is there, and can be sent again."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.builders.dicom import MULTIPART, encoded, multipart, series
from tests.builders.system import System, said, wait_for

pytestmark = [
    pytest.mark.system,
    pytest.mark.requirement("PS3.18 10.5.3: no acknowledged instance is lost when the server is killed"),
]


def test_everything_acknowledged_is_there(own_system: System) -> None:
    own_system.start()
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
