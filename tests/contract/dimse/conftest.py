"""The DIMSE process as an operator starts it, beside the real gateway; dcmtk's tools are the peers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE

from dicomweb.dimse.accounts import save_account
from dicomweb.dimse.application_entity import ApplicationEntity
from foramen.kernel.heartbeat import heartbeat_file
from foramen.kernel.reactor_pause import rests_while_we_send
from foramen.kernel.settings import Settings
from foramen.supervisor.ports import free_port
from tests.builders.dicom import encoded
from tests.contract.dicomweb.conftest import Gateway, gateway, institutions, orthanc

__all__ = ["gateway", "institutions", "orthanc"]

AET = "FORAMEN_QR"
ALL = frozenset(("find", "get", "move", "store", "commit", "mwl", "mpps"))


@pytest.fixture(autouse=True)
def callers_get_their_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own callers are pynetdicom too: on a busy machine it would lose answers (`reactor_pause`)."""
    associate = AE.associate

    def resting(caller: AE, *arguments: Any, **named: Any) -> Any:
        association = associate(caller, *arguments, **named)
        rests_while_we_send(association)
        return association

    monkeypatch.setattr(AE, "associate", resting)


@dataclass
class Dimse:
    """The running process, and how peers call it."""

    settings: Settings
    database_url: str
    folder: Path
    port: int = field(default_factory=free_port)
    extra: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        settings = self.settings
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("FORAMEN_")}
        environment = {
            **inherited,
            "FORAMEN_HOME": str(settings.home),
            "FORAMEN_PORT": str(settings.port),
            "FORAMEN_PUBLIC_URL": settings.origin,
            "FORAMEN_DATABASE_URL": self.database_url,
            "FORAMEN_ORTHANC_HTTP_PORT": str(settings.orthanc_http_port),
            "FORAMEN_DIMSE_PORT": str(self.port),
            "FORAMEN_STABLE_STUDY_S": "1",
            "FORAMEN_INSTITUTIONS": settings.institutions,
            "FORAMEN_DIMSE_COMMIT_WAIT_S": "3",
            "FORAMEN_DIMSE_IDLE_TIMEOUT_S": "4",
            **self.extra,
        }
        beat = heartbeat_file(settings.home, "dimse")
        beat.unlink(missing_ok=True)
        with (self.folder / "dimse.log").open("ab") as log:
            command = [sys.executable, "-m", "foramen", "serve", "--only", "dimse"]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 90
        while not beat.exists():
            assert self.process.poll() is None, (self.folder / "dimse.log").read_text()[-3000:]
            assert time.monotonic() < deadline, "the DIMSE process did not start"
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
            self.process = None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self.process = None

    @property
    def log(self) -> str:
        return (self.folder / "dimse.log").read_text()

    def account(self, title: str, rights: frozenset[str] = ALL, **values: Any) -> ApplicationEntity:
        account = ApplicationEntity(ae_title=title, rights=rights, **{"host": "127.0.0.1", **values})
        save_account(self.database_url, account)
        return account

    async def tool(self, name: str, *arguments: str, title: str = "PEER", called: str = AET) -> tuple[int, str]:
        """Run one of dcmtk's SCUs against the process; returns its exit status and what it said."""
        command = [name, "-aet", title, "-aec", called, *arguments]
        return await run(command, self.folder)

    async def find(self, *keys: str, title: str = "PEER", model: str = "-S") -> tuple[list[Dataset], str]:
        """C-FIND with findscu; returns the identifiers, and what it said."""
        target = self.folder / f"found-{time.monotonic_ns()}"
        target.mkdir()
        arguments = [item for key in keys for item in ("-k", key)]
        _, said = await self.tool(
            "findscu", model, "-v", "-X", "-od", str(target), *arguments, "127.0.0.1", str(self.port), title=title
        )
        return [dcmread(path, force=True) for path in sorted(target.iterdir())], said

    def files(self, *datasets: Dataset) -> Path:
        target = self.folder / f"send-{time.monotonic_ns()}"
        target.mkdir()
        for number, dataset in enumerate(datasets):
            (target / f"{number:05}.dcm").write_bytes(encoded(dataset))
        return target

    async def send(self, *datasets: Dataset, title: str = "PEER") -> tuple[int, str]:
        """C-STORE with storescu."""
        return await self.tool(
            "storescu", "-v", "+sd", "127.0.0.1", str(self.port), str(self.files(*datasets)), title=title
        )

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query, values).fetchall()  # type: ignore[call-overload]


async def run(command: list[str], folder: Path, timeout_s: float = 60.0) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "TCP_NODELAY": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), timeout_s)
    return process.returncode or 0, output.decode(errors="replace")


@contextlib.contextmanager
def storescp(folder: Path, *options: str, title: str = "DEST") -> Iterator[tuple[int, Path]]:
    """dcmtk's storescp on a free port; gives the port and the folder of what it received."""
    port, target = free_port(), folder / f"received-{time.monotonic_ns()}"
    target.mkdir()
    command = ["storescp", "-aet", title, "-od", str(target), *options, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_port(port)
        yield port, target
    finally:
        process.terminate()
        process.wait(10)


def _await_port(port: int) -> None:
    import socket

    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return
        time.sleep(0.05)
    raise AssertionError("nobody listens")


@pytest.fixture(scope="module")
def dimse_environment() -> dict[str, str]:
    """Further settings of the process; a module may say otherwise."""
    return {}


@pytest.fixture(scope="module")
async def dimse(
    gateway: Gateway,
    module_database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    dimse_environment: dict[str, str],
) -> AsyncIterator[Dimse]:
    folder = tmp_path_factory.mktemp("dimse")
    running = Dimse(gateway.orthanc.settings, module_database_url, folder, extra=dimse_environment)
    settings = gateway.orthanc.settings
    running.settings = settings.model_copy(update={"institutions": gateway.service._settings.institutions})
    running.account("PEER")
    try:
        await asyncio.to_thread(running.start)
        yield running
    finally:  # also of a process that did not start in time
        await asyncio.to_thread(running.stop)
