"""Rows of `foramen bench dicomweb`: instances stored a second, through Foramen and straight into its archive by turns.

Same instances, same requests, same durability (the archive's acknowledgement), TCP_NODELAY at both ends. Ours are
checked, indexed and audited as well. Headers are those of a short template, and once more of the length and kind that
devices write. STOW-RS goes to both, Orthanc's being that of its plug-in; as its own REST API
takes an instance a request faster than that, the same is told beside it, without a goal. C-STORE is sent by dcmtk's
storescu to both; Orthanc runs without our comparison of pixels there (`FORAMEN_ORTHANC_COMPARES`). Rates end with the
last acknowledgement; the CPU that is noted is told until the study is registered, whichever way it came.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from foramen.commands.bench_dicomweb_data import ROOT, ct_study
from foramen.commands.bench_dicomweb_system import Bench
from foramen.commands.bench_dicomweb_system import settle as _settle
from foramen.commands.bench_dicomweb_table import Row
from foramen.kernel.errors import UpstreamError
from foramen.kernel.secret_files import read_or_create_secret

CALLER = "BENCH"
_MOST = 200
_CONNECTIONS = 4
_PER_REQUEST = 50
_BOUNDARY = "7f1c0d4e8b2a4f6d9c3e5a7b1d2f4c6e"
"""As clients make them: at random, and so long that the search for it skips through the pixels."""
_GOAL = 0.9
_LONG = ", headers as devices write them"
_NUMBERS = itertools.count(1)

Files = Sequence[bytes]
Prepare = Callable[[Files], Callable[[], None]]
"""Makes files ready to be sent, and returns what sends them."""


@dataclass(frozen=True, slots=True)
class Door:
    """A way in, over one connection or several."""

    name: str
    prepare: Prepare
    connections: int

    def store(self, files: Files) -> float:
        """Send all files, shared out among the connections; returns the seconds until all are acknowledged."""
        sends = [self.prepare(files[number :: self.connections]) for number in range(self.connections)]
        began = time.perf_counter()
        with ThreadPoolExecutor(self.connections) as pool:
            list(pool.map(lambda send: send(), sends))
        return time.perf_counter() - began


def store_figures(bench: Bench) -> Iterator[Row]:
    """Rows of storing; the first round is not counted. Notes what each way costs in CPU, by process."""
    count, meter = min(bench.instances, _MOST), CpuMeter(bench.settings.home)
    several = (1, _CONNECTIONS)
    pairs = [
        *((f"STOW-RS, {one} connections", _stow(bench), _plug_in(bench), one, _GOAL) for one in several),
        *((f"STOW-RS beside Orthanc's REST API, {one}", _stow(bench), _rest(bench), one, None) for one in several),
        *((*pair, _GOAL) for pair in _c_store(bench)),
    ]
    pairs += [
        (f"{name}{_LONG}", ours, theirs, one, goal)
        for name, ours, theirs, one, goal in pairs
        if one == 1 and goal is not None
    ]
    for name, ours, theirs, connections, goal in pairs:
        mine, other = Door("Foramen", ours, connections), Door("Orthanc", theirs, connections)
        rates: dict[str, list[float]] = {mine.name: [], other.name: []}
        costs: dict[str, Counter[str]] = {mine.name: Counter(), other.name: Counter()}
        for turn in range(bench.repeats + 1):
            # By turns in changing order: what one leaves to be written does not always fall to the other.
            for door in (mine, other) if turn % 2 else (other, mine):
                files = list(ct_study(f"{ROOT}.8.{next(_NUMBERS)}", count, count, bench.size, is_long=_LONG in name))
                before = meter.read()
                rate = count / door.store(files)
                if count == _MOST:  # of a few there is little to be done afterwards
                    _settle(bench)
                if turn:
                    rates[door.name].append(rate)
                    costs[door.name].update(meter.read() - before)
        yield Row(name, "instances/s", rates[mine.name], rates[other.name], ratio_goal=goal)
        for door_name, cost in costs.items():
            told = ", ".join(f"{part} {1000 * used / count / bench.repeats:.1f}" for part, used in sorted(cost.items()))
            bench.notes[f"CPU ms an instance, {name}, {door_name}"] = told


class CpuMeter:
    """Seconds of CPU that the processes of one installation have used, by part."""

    def __init__(self, home: Path) -> None:
        self._parts: dict[str, list[psutil.Process]] = {}
        self._postmaster = psutil.Process(int((home / "postgres" / "postmaster.pid").read_text().split()[0]))
        for process in psutil.process_iter():
            try:
                words, environment = process.cmdline(), process.environ()
            except psutil.Error:
                continue
            if str(home) in " ".join(words) and "Orthanc" in words[0]:
                self._parts.setdefault("orthanc", []).append(process)
            elif environment.get("FORAMEN_HOME") == str(home.resolve()) and "serve" in words:
                self._parts.setdefault("dimse" if "dimse" in words else "web", []).append(process)

    def read(self) -> Counter[str]:
        """Return the seconds so far."""
        postgres = [self._postmaster, *self._postmaster.children()]
        return Counter({name: sum(map(_used, found)) for name, found in {**self._parts, "postgres": postgres}.items()})


def _used(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _stow(bench: Bench) -> Prepare:
    return _store_requests(
        f"{bench.settings.origin}/dicom-web/studies", {"Authorization": bench.ours.headers["authorization"]}
    )


def _plug_in(bench: Bench) -> Prepare:
    return _store_requests(f"{bench.settings.archive_url}/dicom-web/studies", _of_orthanc(bench))


def _store_requests(url: str, headers: dict[str, str]) -> Prepare:
    """Requests of the Store transaction, some instances in each."""
    head = f"\r\n--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    end = f"\r\n--{_BOUNDARY}--\r\n".encode()
    content_type = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'

    def body(files: Files) -> bytes:
        return b"".join([*(piece for content in files for piece in (head, content)), end])

    def prepare(files: Files) -> Callable[[], None]:
        bodies = [body(files[start : start + _PER_REQUEST]) for start in range(0, len(files), _PER_REQUEST)]
        return partial(_post_all, url, headers | {"Content-Type": content_type}, bodies)

    return prepare


def _rest(bench: Bench) -> Prepare:
    headers = _of_orthanc(bench) | {"Content-Type": "application/dicom"}
    return lambda files: partial(_post_all, f"{bench.settings.archive_url}/instances", headers, files)


def _of_orthanc(bench: Bench) -> dict[str, str]:
    pair = f"{bench.settings.orthanc_username}:{read_or_create_secret(bench.settings.home, 'orthanc')}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _post_all(url: str, headers: dict[str, str], bodies: Sequence[bytes]) -> None:
    """Post bodies one after the other on one connection (http.client sets TCP_NODELAY).

    Raises
    ------
    UpstreamError
        An answer other than 200.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=300)
    try:
        for body in bodies:
            connection.request("POST", parts.path, body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise UpstreamError(f"The server answered {answer.status}")
    finally:
        connection.close()


def _c_store(bench: Bench) -> Iterator[tuple[str, Prepare, Prepare, int]]:
    # The environment of this Python has a program of the same name, of pynetdicom.
    elsewhere = [folder for folder in os.get_exec_path() if Path(folder) != Path(sys.executable).parent]
    program, settings = shutil.which("storescu", path=os.pathsep.join(elsewhere)), bench.settings
    if program is None:
        bench.notes["C-STORE"] = "not measured: dcmtk is not installed"
        return
    from dicomweb.dimse.accounts import save_account
    from dicomweb.dimse.application_entity import ApplicationEntity

    save_account(bench.database_url, ApplicationEntity(ae_title=CALLER, rights=frozenset(("store",)), host="127.0.0.1"))
    ours = _storescu(program, settings.dimse_aet, settings.dimse_port)
    theirs = _storescu(program, settings.dicom_aet, settings.dicom_port)
    for connections in (1, _CONNECTIONS):
        yield f"C-STORE, {connections} associations", ours, theirs, connections


def _storescu(program: str, title: str, port: int) -> Prepare:
    def prepare(files: Files) -> Callable[[], None]:
        folder = Path(tempfile.mkdtemp(prefix="foramen-bench-send-"))
        for number, content in enumerate(files):
            (folder / f"{number:05}.dcm").write_bytes(content)
        command = [program, "-aet", CALLER, "-aec", title, "+sd", "-R", "127.0.0.1", str(port), str(folder)]

        def send() -> None:
            try:
                done = subprocess.run(
                    command, env={**os.environ, "TCP_NODELAY": "1"}, capture_output=True, timeout=600, check=False
                )
            finally:
                shutil.rmtree(folder)
            if done.returncode != 0:
                raise UpstreamError("storescu failed")

        return send

    return prepare
