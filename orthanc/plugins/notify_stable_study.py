# Foramen - Orthanc plug-in: tells the DICOMweb gateway which studies are complete.
# Copyright (C) 2026 The Foramen authors
#
# This program is free software: you can redistribute it and/or modify it under the terms of the GNU General Public
# License as published by the Free Software Foundation, either version 3 of the License, or (at your option) any later
# version. This program is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY; without even the
# implied warranty of MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE. See the GNU General Public License for more
# details. You should have received a copy of the GNU General Public License along with this program. If not, see
# <https://www.gnu.org/licenses/>.
#
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage 2, notify: stable study in Orthanc -> `StudyArrived` (UIDs only) at the gateway, at least once.

https://orthanc.uclouvain.be/book/plugins/python.html (OnChange); the change log of Orthanc's REST API (/changes).

Orthanc's own change log is the source: a study is noticed by sweeping it, so a crash between two steps loses nothing.
`checkpoint.json` keeps two sequence numbers: `swept` (everything before it lies in the outbox) and `floor` (everything
before it belongs to studies that had time to become stable). Orthanc forgets at a restart which studies were still
unstable, so the first sweep starts at `floor` and takes every new instance for an arrival.
"""

from __future__ import annotations

import collections
import json
import os
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping

import orthanc

SWEEP_S = 5.0
FIRST_BACK_OFF_S = 0.5
LONGEST_BACK_OFF_S = 60.0
SETTLE_S = 30.0
PAGE = 1000
_STARTS_A_STUDY = {"NewInstance", "NewSeries", "NewStudy", "StableStudy", "StableSeries"}
_PARENT = {"Study": "", "Series": "/study", "Instance": "/study"}
_FOLDER = {"Study": "studies", "Series": "series", "Instance": "instances"}


def write_durably(path: str, content: dict) -> None:
    """Write a small JSON file so that it is either wholly there or not at all, also after a crash."""
    staged = f"{path}.tmp"
    with open(staged, "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(staged, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Outbox:
    """Arrivals that the gateway has not confirmed yet: one small file each, UIDs only."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        os.makedirs(folder, mode=0o700, exist_ok=True)

    def put(self, study_instance_uid: str) -> None:
        """Keep one arrival; on return it is on disk."""
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex}.json"
        content = {"studyInstanceUID": study_instance_uid, "traceId": uuid.uuid4().hex}
        write_durably(os.path.join(self.folder, name), content)

    def pending(self) -> list:
        """Paths of unconfirmed arrivals, oldest first."""
        names = sorted(name for name in os.listdir(self.folder) if name.endswith(".json") and name[0].isdigit())
        return [os.path.join(self.folder, name) for name in names]


class Checkpoint:
    """How far Orthanc's change log has been worked through."""

    def __init__(self, folder: str, settle_s: float) -> None:
        self.path = os.path.join(folder, "checkpoint.json")
        self.settle_s = settle_s
        self.swept = self.floor = 0
        self._passed = collections.deque()
        try:
            with open(self.path, encoding="utf-8") as file:
                content = json.load(file)
            self.swept, self.floor = int(content["swept"]), int(content["floor"])
        except (OSError, ValueError, KeyError, TypeError):
            self.swept = self.floor = 0

    def advance(self, swept: int, now: float) -> None:
        """Move `swept` on, and `floor` to what was swept `settle_s` ago; write when something changed."""
        before = (self.swept, self.floor)
        self.swept = swept
        if not self._passed or self._passed[-1][1] != swept:
            self._passed.append((now, swept))
        while self._passed and self._passed[0][0] <= now - self.settle_s:
            self.floor = max(self.floor, self._passed[0][1])
            self._passed.popleft()
        if (self.swept, self.floor) != before:
            write_durably(self.path, {"swept": self.swept, "floor": self.floor})

    def restart(self) -> None:
        """Begin again at zero: the archive's change log is shorter than we remember (it was emptied)."""
        self.swept = self.floor = 0
        self._passed.clear()


def rest_get(path: str) -> dict | None:
    """GET of Orthanc's own REST API, in process; None when the resource is gone."""
    try:
        return json.loads(orthanc.RestApiGet(path))
    except Exception as exc:  # noqa: BLE001  orthanc.OrthancException exists inside Orthanc only; a deleted study is no fault
        orthanc.LogInfo(f"notify_stable_study: nothing at that path ({type(exc).__name__})")
        return None


def study_uid_of(change: dict) -> str | None:
    """Study Instance UID of the study a change belongs to, or None when it was deleted since."""
    level = change["ResourceType"]
    study = rest_get(f"/{_FOLDER[level]}/{change['ID']}{_PARENT[level]}")
    return None if study is None else study["MainDicomTags"].get("StudyInstanceUID")


# Never through a proxy that the environment names: the message carries the secret and the study's UID.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Notifier:
    """The thread that sweeps the change log and delivers the outbox."""

    def __init__(self, url: str, secret_file: str, folder: str, settle_s: float = SETTLE_S) -> None:
        self.url, self.secret_file = url, secret_file
        self.outbox = Outbox(folder)
        self.checkpoint = Checkpoint(folder, settle_s)
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="notify_stable_study", daemon=True)
        self._back_off_s, self._retry_at = 0.0, 0.0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Called inside Orthanc's callback: enqueue only, REST calls in there can deadlock."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread; what is undelivered stays on disk."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=5)

    def sweep(self, *, recover: bool = False) -> None:
        """Put the studies of new changes into the outbox, then move the checkpoint on.

        With `recover` (once, at start) from `floor` on and for every new instance; otherwise for stable studies alone.
        """
        if recover and (rest_get("/changes?last") or {}).get("Last", 0) < self.checkpoint.floor:
            self.checkpoint.restart()
        since = self.checkpoint.floor if recover else self.checkpoint.swept
        noticed, uids = _STARTS_A_STUDY if recover else {"StableStudy"}, {}
        while True:
            page = rest_get(f"/changes?since={since}&limit={PAGE}")
            if page is None:
                raise RuntimeError("the change log cannot be read")
            for change in page["Changes"]:
                if change["ChangeType"] in noticed and change["ResourceType"] in _FOLDER:
                    uid = study_uid_of(change)
                    if uid:
                        uids[uid] = None
            since = max(since, page.get("Last", since))
            if page.get("Done", True):
                break
        for uid in uids:
            self.outbox.put(uid)
        self.checkpoint.advance(since, time.monotonic())

    def deliver(self) -> bool:
        """Post what lies in the outbox. Returns whether everything was confirmed."""
        complete = True
        for path in self.outbox.pending():
            if self._stop.is_set():
                return False
            if self._post(path):
                os.unlink(path)
            else:
                complete = False
        return complete

    def _post(self, path: str) -> bool:
        try:
            with open(path, "rb") as file:
                body = file.read()
            with open(self.secret_file, encoding="utf-8") as file:
                secret = file.read().strip()
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {secret}"}
            message = urllib.request.Request(self.url, data=body, headers=headers, method="POST")  # noqa: S310
            with _DIRECT.open(message, timeout=10) as response:
                return 200 <= response.status < 300
        except urllib.error.HTTPError as exc:
            orthanc.LogWarning(f"notify_stable_study: the gateway answered {exc.code}; will try again")
        except OSError as exc:
            orthanc.LogInfo(f"notify_stable_study: the gateway does not answer ({type(exc).__name__}); will try again")
        return False

    def _run(self) -> None:
        recover = True
        while not self._stop.is_set():
            try:
                self.sweep(recover=recover)
                recover = False
                if time.monotonic() >= self._retry_at:
                    self._schedule(self.deliver())
            except Exception as exc:  # noqa: BLE001  the thread must outlive a full disk or a bad answer; nothing is dropped
                orthanc.LogError(f"notify_stable_study: {type(exc).__name__}; will try again")
                self._schedule(False)
            wait_s = max(0.05, self._retry_at - time.monotonic()) if self._back_off_s else SWEEP_S
            self._wake.wait(min(wait_s, SWEEP_S))
            self._wake.clear()

    def _schedule(self, complete: bool) -> None:
        """Back off after a failure: 0.5 s, 1 s, ... 60 s, for ever; none after success."""
        self._back_off_s = 0.0 if complete else min(max(FIRST_BACK_OFF_S, 2 * self._back_off_s), LONGEST_BACK_OFF_S)
        self._retry_at = time.monotonic() + self._back_off_s


def main(environment: Mapping = os.environ) -> Notifier | None:
    """Register the callback; without its settings the plug-in stays silent and says so."""
    names = ("FORAMEN_NOTIFY_URL", "FORAMEN_NOTIFY_SECRET_FILE", "FORAMEN_OUTBOX_DIR")
    missing = [name for name in names if not environment.get(name)]
    if missing:
        orthanc.LogError(f"notify_stable_study: not active, {', '.join(missing)} not set")
        return None
    settle_s = float(environment.get("FORAMEN_SETTLE_S") or SETTLE_S)
    notifier = Notifier(*(environment[name] for name in names), settle_s)

    def on_change(change_type: int, _level: int, _resource_id: str) -> None:
        if change_type == orthanc.ChangeType.STABLE_STUDY:
            notifier.wake()
        elif change_type == orthanc.ChangeType.ORTHANC_STARTED:
            notifier.start()
        elif change_type == orthanc.ChangeType.ORTHANC_STOPPED:
            notifier.stop()

    orthanc.RegisterOnChangeCallback(on_change)
    return notifier


main()
