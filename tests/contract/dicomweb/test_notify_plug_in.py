"""The notify plug-in inside the real Orthanc: kill -9 of Orthanc, a gateway that is down, both, and nothing is lost."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from foramen.ingest.send import send_instances
from foramen.supervisor.ports import free_port
from tests.builders.dicom import Orthanc, private_orthanc, series

pytestmark = pytest.mark.system


class Receiver:
    def __init__(self, port: int) -> None:
        self.studies: list[str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.studies.append(body["studyInstanceUID"])
                self.send_response(202)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def wait_for(self, study: str, timeout_s: float = 20) -> None:
        deadline = time.monotonic() + timeout_s
        while study not in self.studies:
            assert time.monotonic() < deadline, "the study was not announced in time"
            time.sleep(0.05)


def send(orthanc: Orthanc, seed: int) -> str:
    datasets = series(2, seed=seed, patient_id=f"SYN-{seed}")
    outcomes = send_instances(datasets, "127.0.0.1", orthanc.settings.dicom_port, orthanc.settings.dicom_aet)
    assert [item.reason for item in outcomes] == ["", ""]
    return datasets[0].StudyInstanceUID


def test_nothing_is_lost_by_kills_and_a_gateway_that_is_down(tmp_path: Path):
    port = free_port()
    with private_orthanc(tmp_path, port=port) as orthanc:
        receiver = Receiver(port)
        receiver.wait_for(send(orthanc, 101))
        receiver.stop()

        # The gateway is down: the stable study waits in the outbox, over a kill -9 of Orthanc.
        waiting = send(orthanc, 102)
        outbox = tmp_path / "orthanc" / "outbox"
        deadline = time.monotonic() + 15
        while not list(outbox.glob("0*.json")) + list(outbox.glob("1*.json")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # Killed before it could become stable: Orthanc itself forgets this one, its change log does not.
        unstable = send(orthanc, 103)
        orthanc.kill()
        assert not any("SYN" in path.read_text() for path in outbox.iterdir())

        receiver = Receiver(port)
        orthanc.start()
        receiver.wait_for(waiting)
        receiver.wait_for(unstable)
        receiver.stop()
