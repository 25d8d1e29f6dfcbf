"""The notify plug-in with a fake `orthanc` module: nothing acknowledged by Orthanc is ever forgotten, UIDs only."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[3] / "orthanc" / "plugins" / "notify_stable_study.py"


class FakeOrthanc(types.ModuleType):
    """Answers /changes and /studies as Orthanc does; the callback it registers can be fired."""

    class ChangeType:
        STABLE_STUDY, ORTHANC_STARTED, ORTHANC_STOPPED, NEW_INSTANCE = range(4)

    def __init__(self) -> None:
        super().__init__("orthanc")
        self.changes: list[dict] = []
        self.studies: dict[str, str] = {}
        self.parents: dict[str, str] = {}
        self.callback = None
        self.log: list[str] = []
        self.LogInfo = self.LogWarning = self.LogError = self.log.append

    def RegisterOnChangeCallback(self, callback) -> None:
        self.callback = callback

    def add(self, kind: str, level: str, orthanc_id: str) -> None:
        self.changes.append({"ChangeType": kind, "ResourceType": level, "ID": orthanc_id, "Seq": len(self.changes) + 1})

    def RestApiGet(self, path: str) -> bytes:
        if path == "/changes?last":
            return json.dumps({"Last": len(self.changes)}).encode()
        if path.startswith("/changes?since="):
            since, limit = (int(part.split("=")[1]) for part in path.partition("?")[2].split("&"))
            page = self.changes[since : since + limit]
            done = since + len(page) >= len(self.changes)
            return json.dumps({"Changes": page, "Done": done, "Last": page[-1]["Seq"] if page else since}).encode()
        _, level, orthanc_id, *_ = path.split("/")
        study = orthanc_id if level == "studies" else self.parents[orthanc_id]
        tags = {"StudyInstanceUID": self.studies[study], "PatientName": "NEVER^SEND"}
        return json.dumps({"MainDicomTags": tags}).encode()


class Receiver:
    """A gateway that answers as told and keeps what it was sent."""

    def __init__(self, statuses: list[int]) -> None:
        self.received: list[tuple[str, dict]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.received.append((self.headers["Authorization"], body))
                self.send_response(statuses.pop(0) if statuses else 202)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/dicom-web/-/study-arrived"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def orthanc(monkeypatch: pytest.MonkeyPatch) -> FakeOrthanc:
    fake = FakeOrthanc()
    monkeypatch.setitem(sys.modules, "orthanc", fake)
    fake.studies = {"s1": "1.2.1", "s2": "1.2.2"}
    fake.parents = {"i1": "s1", "i2": "s2"}
    return fake


def load(orthanc: FakeOrthanc):
    spec = importlib.util.spec_from_file_location("notify_stable_study", PLUGIN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "notify"
    path.write_text("the-secret\n")
    return path


def notifier(module, url: str, secret: Path, folder: Path, **options):
    return module.Notifier(url, str(secret), str(folder), **options)


def test_without_settings_it_says_so_and_stays_silent(orthanc: FakeOrthanc):
    load(orthanc)
    assert orthanc.callback is None
    assert "FORAMEN_NOTIFY_URL" in orthanc.log[0]


def test_it_needs_the_standard_library_alone():
    imported = {
        line.split()[1].split(".")[0]
        for line in PLUGIN.read_text().splitlines()
        if line.startswith(("import ", "from "))
    }
    assert imported - {"orthanc"} <= set(sys.stdlib_module_names)
    assert "GNU General Public License" in PLUGIN.read_text()[:1200]


def test_a_stable_study_is_delivered_with_uids_only(orthanc: FakeOrthanc, secret: Path, tmp_path: Path):
    receiver = Receiver([])
    one = notifier(load(orthanc), receiver.url, secret, tmp_path / "outbox")
    orthanc.add("NewInstance", "Instance", "i1")
    orthanc.add("StableStudy", "Study", "s1")
    one.sweep()
    assert one.deliver()
    ((authorization, body),) = receiver.received
    assert authorization == "Bearer the-secret"
    assert body["studyInstanceUID"] == "1.2.1"
    assert set(body) == {"studyInstanceUID", "traceId"}
    assert one.outbox.pending() == []
    one.sweep()
    assert one.deliver()
    assert len(receiver.received) == 1


def test_while_the_gateway_refuses_the_arrival_stays_on_disk(orthanc: FakeOrthanc, secret: Path, tmp_path: Path):
    receiver = Receiver([503, 401])
    module = load(orthanc)
    one = notifier(module, receiver.url, secret, tmp_path / "outbox")
    orthanc.add("StableStudy", "Study", "s1")
    one.sweep()
    assert not one.deliver()
    again = notifier(module, receiver.url, secret, tmp_path / "outbox")
    assert not again.deliver()
    assert again.deliver()
    assert len({body["traceId"] for _, body in receiver.received}) == 1


def test_nobody_listens(orthanc: FakeOrthanc, secret: Path, tmp_path: Path):
    one = notifier(load(orthanc), "http://127.0.0.1:9/", secret, tmp_path / "outbox")
    orthanc.add("StableStudy", "Study", "s1")
    one.sweep()
    assert not one.deliver()
    assert len(one.outbox.pending()) == 1


def test_a_stable_study_missed_in_a_crash_is_found_in_the_change_log(
    orthanc: FakeOrthanc, secret: Path, tmp_path: Path
):
    module = load(orthanc)
    one = notifier(module, "http://127.0.0.1:9/", secret, tmp_path / "outbox")
    one.sweep(recover=True)
    orthanc.add("StableStudy", "Study", "s2")
    restarted = notifier(module, "http://127.0.0.1:9/", secret, tmp_path / "outbox")
    restarted.sweep(recover=True)
    (path,) = restarted.outbox.pending()
    assert json.loads(Path(path).read_text())["studyInstanceUID"] == "1.2.2"


def test_a_study_that_was_still_unstable_when_orthanc_died_is_an_arrival(
    orthanc: FakeOrthanc, secret: Path, tmp_path: Path
):
    module = load(orthanc)
    one = notifier(module, "http://127.0.0.1:9/", secret, tmp_path / "outbox")
    orthanc.add("NewInstance", "Instance", "i1")
    one.sweep()
    assert one.outbox.pending() == []
    restarted = notifier(module, "http://127.0.0.1:9/", secret, tmp_path / "outbox")
    restarted.sweep(recover=True)
    assert len(restarted.outbox.pending()) == 1


def test_what_had_time_to_become_stable_is_not_sent_again(orthanc: FakeOrthanc, secret: Path, tmp_path: Path):
    module = load(orthanc)
    one = notifier(module, "http://127.0.0.1:9/", secret, tmp_path / "outbox", settle_s=0.0)
    orthanc.add("NewInstance", "Instance", "i1")
    orthanc.add("StableStudy", "Study", "s1")
    one.sweep()
    one.sweep()
    for path in one.outbox.pending():
        Path(path).unlink()
    restarted = notifier(module, "http://127.0.0.1:9/", secret, tmp_path / "outbox")
    restarted.sweep(recover=True)
    assert restarted.outbox.pending() == []


def test_a_deleted_study_is_passed_over(orthanc: FakeOrthanc, secret: Path, tmp_path: Path):
    one = notifier(load(orthanc), "http://127.0.0.1:9/", secret, tmp_path / "outbox")
    orthanc.add("StableStudy", "Study", "gone")
    orthanc.add("StableStudy", "Study", "s1")
    one.sweep()
    assert len(one.outbox.pending()) == 1


def test_a_damaged_checkpoint_starts_from_the_beginning(orthanc: FakeOrthanc, secret: Path, tmp_path: Path):
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / "checkpoint.json").write_text('{"swept": ')
    one = notifier(load(orthanc), "http://127.0.0.1:9/", secret, tmp_path / "outbox")
    orthanc.add("StableStudy", "Study", "s1")
    one.sweep(recover=True)
    assert len(one.outbox.pending()) == 1


def test_the_callback_only_wakes_the_thread(orthanc: FakeOrthanc, secret: Path, tmp_path: Path):
    module = load(orthanc)
    receiver = Receiver([])
    names = ("FORAMEN_NOTIFY_URL", "FORAMEN_NOTIFY_SECRET_FILE", "FORAMEN_OUTBOX_DIR")
    running = module.main(dict(zip(names, (receiver.url, str(secret), str(tmp_path / "outbox")), strict=True)))
    orthanc.callback(orthanc.ChangeType.ORTHANC_STARTED, 0, "")
    orthanc.add("StableStudy", "Study", "s1")
    orthanc.callback(orthanc.ChangeType.STABLE_STUDY, 1, "s1")
    deadline = threading.Event()
    for _ in range(100):
        if receiver.received:
            break
        deadline.wait(0.05)
    assert receiver.received[0][1]["studyInstanceUID"] == "1.2.1"
    orthanc.callback(orthanc.ChangeType.ORTHANC_STOPPED, 0, "")
    assert not running._thread.is_alive()
