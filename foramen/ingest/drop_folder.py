"""A folder that is watched: what lies still in it is sent, then moved to `done/` or `failed/` with a reason file.

One entry of the folder, a file or a folder, is one thing. The order is: send (the journal remembers each instance),
write the reason file, move by rename. Broken off anywhere, the next look begins with the same entry, sends nothing
twice and ends with the same names. Names are made of hashes: what others call a file may name a patient.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from foramen.ingest.run import Destination, Report, ingest_paths
from foramen.ingest.sources import find
from foramen.kernel.errors import ConflictError
from foramen.kernel.log import get_log

DONE, FAILED = "done", "failed"
_LOCK = ".foramen-drop-folder"
_UNFINISHED = (".part", ".partial", ".tmp", ".filepart", ".crdownload")
_KEPT_SUFFIXES = (".zip", ".dcm", ".nii", ".nii.gz", ".mha", ".nrrd", ".mp4", ".stl", ".obj", ".png", ".jpg", ".jpeg")
State = tuple[tuple[str, int, int], ...]


@dataclass(slots=True)
class DropFolder:
    """The folder, where its content goes, and how long an entry has to lie still first (seconds)."""

    folder: Path
    destination: Destination
    home: Path
    settle_s: float = 5.0
    _seen: dict[str, tuple[State, float]] = field(default_factory=dict)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for as long as it is watched.

        Raises
        ------
        ConflictError
            Another process watches it.
        """
        for name in (DONE, FAILED):
            (self.folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / _LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                raise ConflictError("Another process watches this folder") from exc
            yield

    def entries(self) -> list[Path]:
        """Return what lies in the folder to be sent, the oldest first."""
        found = [
            entry
            for entry in self.folder.iterdir()
            if entry.name not in (DONE, FAILED)
            and not entry.name.startswith(".")
            and not entry.name.lower().endswith(_UNFINISHED)
        ]
        return sorted(found, key=lambda entry: (entry.lstat().st_mtime_ns, entry.name))

    def look(self, now: float) -> int:
        """Send every entry that has lain still; returns how many were moved.

        Parameters
        ----------
        now : seconds of a clock that never goes back
        """
        moved, there = 0, set()
        for entry in self.entries():
            there.add(entry.name)
            try:
                state = _state(entry)
            except OSError:
                continue  # it is being moved or removed: the next look sees what came of it
            known = self._seen.get(entry.name)
            if known is None or known[0] != state:
                self._seen[entry.name] = (state, now)
            elif state and now - known[1] >= self.settle_s:
                moved += self._settle(entry, state)
        self._seen = {name: seen for name, seen in self._seen.items() if name in there}
        return moved

    def _settle(self, entry: Path, state: State) -> bool:
        """Send one entry and move it; False: it stays, as the archive cannot take it now, or it changed meanwhile."""
        report = Report()
        if entry.is_symlink():
            report.failed.append((entry.name, "it is a link"))
        else:
            report = ingest_paths(find([entry], follow_links=False), self.destination, self.home)
        if report.unreachable:
            get_log().warning("drop folder waits for the archive", count=len(report.failed))
            return False
        if not entry.is_symlink() and _state(entry) != state:
            return False
        if not report.failed and report.stored + report.skipped == 0:
            report.failed.append((entry.name, "it holds no image"))
        place = self._place(entry, state, FAILED if report.failed else DONE)
        _write_reason(place.with_name(f"{place.name}.reason.json"), entry, report)
        entry.rename(place)
        _sync(place.parent)
        _sync(self.folder)
        get_log().info("drop folder entry", name=place.name, outcome=place.parent.name, count=report.stored)
        return True

    def _place(self, entry: Path, state: State, outcome: str) -> Path:
        """Name that follows from what the entry is, so that a repeat after a crash finds its own reason file."""
        text = "\n".join([entry.name, *(f"{name}:{size}:{time_ns}" for name, size, time_ns in state)])
        suffix = next((end for end in _KEPT_SUFFIXES if entry.name.lower().endswith(end)), "")
        name = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:20]
        place = self.folder / outcome / f"{name}{suffix}"
        number = 1
        while place.exists() or place.is_symlink():
            number += 1
            place = self.folder / outcome / f"{name}-{number}{suffix}"
        return place


def watch(drop: DropFolder, stopped: Callable[[], bool], pause_s: float = 1.0) -> None:
    """Look again and again until `stopped`; an entry that is being sent is finished first.

    Raises
    ------
    ConflictError
        Another process watches the folder.
    """
    with drop.held():
        while not stopped():
            try:
                drop.look(time.monotonic())
            except OSError as exc:  # a full disk, a share that went away: said, and tried again
                get_log().warning("drop folder cannot be used now", reason=exc.strerror or type(exc).__name__)
            time.sleep(pause_s)


def _state(entry: Path) -> State:
    """Relative name, size and time of change of every file of an entry."""
    files = [entry] if entry.is_symlink() or not entry.is_dir() else sorted(entry.rglob("*"))
    return tuple(
        (str(file.relative_to(entry)), status.st_size, status.st_mtime_ns)
        for file in files
        if (file.is_symlink() or not file.is_dir()) and (status := file.lstat())
    )


def _write_reason(place: Path, entry: Path, report: Report) -> None:
    """Write what became of an entry, whole or not at all; it stands beside the images and is as secret as they are."""
    content = {
        "entry": entry.name.encode(errors="replace").decode(),
        "stored": report.stored,
        "acknowledged_before": report.skipped,
        "failed": [{"file": name, "reason": reason} for name, reason in report.failed],
        "mended": [{"file": name, "what": list(what)} for name, what in report.mended],
    }
    draft = place.with_name(f".{place.name}")
    with draft.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(orjson.dumps(content, option=orjson.OPT_INDENT_2))
        file.flush()
        os.fsync(file.fileno())
    draft.rename(place)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
