"""Rows of `foramen bench dicomweb`: frames, the whole study, the first image; of any DICOMweb server, by its base URL.

One thread and one kept connection for each client; bodies are received and thrown away. With FORAMEN_NGINX_SENDFILE the
whole study is asked for through an nginx with deploy/nginx.conf too: the table says which way was measured.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median

from foramen.commands.bench_dicomweb_system import Bench
from foramen.commands.bench_dicomweb_table import Row
from foramen.commands.bench_http import LeanConnection
from foramen.kernel.errors import UpstreamError
from foramen.kernel.secret_files import read_or_create_secret
from foramen.supervisor.ports import free_port

FRAME = 'multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.1'
INSTANCE = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_MOST_FRAMES = 1000
NGINX_CONFIG = Path(__file__).parents[2] / "deploy" / "nginx.conf"


@dataclass(frozen=True, slots=True)
class Server:
    """One server: base URL of its DICOMweb API, headers of every request (a token, or Orthanc's password)."""

    base: str
    headers: Mapping[str, str]


def get_all(server: Server, paths: Sequence[str], accept: str) -> int:
    """Ask for paths one after the other on one connection; returns the bytes of the bodies.

    Raises
    ------
    UpstreamError
        An answer other than 200, or one that breaks off.
    """
    with LeanConnection(server.base, {**server.headers, "Accept": accept}) as connection:
        return sum(map(connection.get, paths))


def _timed(server: Server, groups: Sequence[Sequence[str]], accept: str) -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(len(groups)) as pool:
        list(pool.map(lambda group: get_all(server, group, accept), groups))
    return time.perf_counter() - began


def frames_s(server: Server, instances: Sequence[str], connections: int) -> float:
    """Seconds for frame 1 of each instance ("/studies/…/instances/…"), shared out among the connections."""
    paths = [f"{instance}/frames/1" for instance in instances]
    return _timed(server, [paths[number::connections] for number in range(connections)], FRAME)


def whole_study_s(server: Server, study: str) -> float:
    """Seconds for a whole study as stored, in one multipart answer."""
    return _timed(server, [[study]], INSTANCE)


def first_image_s(server: Server, study: str, instance: str) -> float:
    """Seconds from nothing to the first image, as a viewer works: series of the study, then one frame."""
    began = time.perf_counter()
    get_all(server, [f"{study}/series"], "application/dicom+json")
    get_all(server, [f"{instance}/frames/1"], FRAME)
    return time.perf_counter() - began


def retrieve_figures(bench: Bench) -> Iterator[Row]:
    """Rows of retrieval, Foramen and Orthanc's own plug-in by turns; the first round is not counted."""
    ours, theirs = servers(bench)
    answer = bench.ours.get(f"/studies/{bench.study}/instances", params={"limit": str(_MOST_FRAMES)})
    found = [(row["0020000E"]["Value"][0], row["00080018"]["Value"][0]) for row in answer.json()]
    study = f"/studies/{bench.study}"
    instances = [f"{study}/series/{series}/instances/{uid}" for series, uid in found]
    count = len(instances)
    for connections, ratio in ((1, 8.0), (6, 10.0)):
        work = partial(frames_s, instances=instances, connections=connections)
        times = _by_turns(bench, work, ours, theirs)
        yield Row(f"{count} frames, {connections} connections", "ms", *times, ratio_goal=ratio)
    times = _by_turns(bench, lambda server: first_image_s(server, study, instances[count // 2]), ours, theirs)
    yield Row("first image of a study", "ms", *times, goal=30)
    times = _by_turns(bench, lambda server: whole_study_s(server, study), ours, theirs)
    yield Row(f"whole study of {bench.instances}, by Granian", "ms", *times, goal=1000, ratio_goal=2)
    files = archived_files(bench)
    alone = [1000 * sendfile_alone_s(files) for _ in range(bench.repeats + 1)][1:]
    bench.notes["the whole study by sendfile(2) alone, no server, what this machine can"] = f"{median(alone):.1f} ms"
    if not bench.settings.nginx_sendfile:
        return
    with nginx(bench.settings.home, bench.settings.port) as origin:
        proxied = Server(f"{origin}/dicom-web", ours.headers)
        times = _by_turns(bench, lambda server: whole_study_s(server, study), proxied, theirs)
    yield Row(f"whole study of {bench.instances}, by nginx", "ms", *times, goal=1000, ratio_goal=2)


def archived_files(bench: Bench) -> list[Path]:
    """Files of the study in the archive's folder, in the order in which it keeps them."""
    storage = bench.settings.orthanc_storage or bench.settings.home / "orthanc" / "storage"
    large = (path for path in storage.rglob("*") if path.is_file() and path.stat().st_size > 2 * bench.size**2)
    return list(islice(large, bench.instances))


def sendfile_alone_s(paths: Sequence[Path]) -> float:
    """Seconds for files, one after the other, by sendfile(2) over the loopback, received and thrown away."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        ThreadPoolExecutor(1) as pool,
        socket.create_connection(listener.getsockname()) as client,
    ):
        sender, _ = listener.accept()
        began = time.perf_counter()
        sending = pool.submit(_send_files, sender, paths)
        buffer = bytearray(1024 * 1024)
        while client.recv_into(buffer):
            pass
        sending.result()
        return time.perf_counter() - began


def _send_files(target: socket.socket, paths: Sequence[Path]) -> None:
    with target:
        for path in paths:
            with path.open("rb", buffering=0) as file:
                target.sendfile(file)


def servers(bench: Bench) -> tuple[Server, Server]:
    """Return Foramen's and Orthanc's DICOMweb of a running system."""
    settings = bench.settings
    secret = read_or_create_secret(settings.home, "orthanc")
    password = base64.b64encode(f"{settings.orthanc_username}:{secret}".encode()).decode()
    ours = Server(f"{settings.origin}/dicom-web", {"Authorization": bench.ours.headers["authorization"]})
    return ours, Server(f"{settings.archive_url}/dicom-web", {"Authorization": f"Basic {password}"})


def _by_turns(
    bench: Bench, work: Callable[[Server], float], ours: Server, theirs: Server
) -> tuple[list[float], list[float]]:
    rounds = [(1000 * work(ours), 1000 * work(theirs)) for _ in range(bench.repeats + 1)][1:]
    return [mine for mine, _ in rounds], [other for _, other in rounds]


def nginx_configuration(home: Path, upstream: int, port: int, folder: Path) -> str:
    """deploy/nginx.conf for a private nginx: our ports, folders and user."""
    text = NGINX_CONFIG.read_text(encoding="utf-8")
    for old, new in (
        ("127.0.0.1:8000", f"127.0.0.1:{upstream}"),
        ("127.0.0.1:8080", f"127.0.0.1:{port}"),
        ("/var/lib/foramen/", f"{home.resolve()}/"),
    ):
        text = text.replace(old, new)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "user root;\n" if os.getuid() == 0 else ""
    head = f"{user}pid {folder}/pid;\nerror_log {folder}/error.log;\ndaemon off;\n"
    return head + text.replace("http {", f"http {{ {temporary}", 1)


@contextlib.contextmanager
def nginx(home: Path, upstream: int) -> Iterator[str]:
    """Run a private nginx in front of a web process; yields its origin.

    Raises
    ------
    UpstreamError
        It is not installed or does not start.
    """
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        raise UpstreamError("nginx is not installed")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="foramen-nginx-") as name:
        folder = Path(name)
        path = folder / "nginx.conf"
        path.write_text(nginx_configuration(home, upstream, port, folder), encoding="utf-8")
        process = subprocess.Popen([program, "-c", str(path), "-e", str(folder / "error.log")])
        try:
            _await_port(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        if process.poll() is not None:
            break
        try:  # A connection only: whoever asks may be the one who would have to answer.
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise UpstreamError("nginx does not start")
