"""The FHIR service in a web process of its own, for clients that bring their own HTTP and for tests that kill it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.builders.tokens import KEY, ORIGIN, token

_ROOT = Path(__file__).parents[3]
_START_S = 60.0


@dataclass
class ServerProcess:
    """A running web process."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def base(self) -> str:
        """Base URL of the FHIR API."""
        return f"http://127.0.0.1:{self.port}/fhir"

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def stop(self) -> None:
        """End it as an operator would."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(database_url: str, folder: Path, port: int | None = None, **environment: str) -> ServerProcess:
    """Start a web process and wait until it answers."""
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    told = folder / "server.json"
    told.write_text(json.dumps({"port": port, "database_url": database_url, "key": KEY.as_dict(private=True)}))
    told.chmod(0o600)
    log = folder / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.fhir.server_process", str(told)],
            cwd=_ROOT,
            env={**os.environ, "FORAMEN_HOME": str(folder / "home"), **environment},
            stdout=output,
            stderr=output,
        )
    server = ServerProcess(process, port, log)
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{server.base}/metadata", timeout=10).status_code == 200:
                return server
        time.sleep(0.05)
    server.stop()
    raise AssertionError(f"the web process does not answer:\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def serving(database_url: str, **environment: str) -> Iterator[ServerProcess]:
    """A web process for the length of a test module."""
    with tempfile.TemporaryDirectory(prefix="foramen-test-web-") as folder:
        server = start(database_url, Path(folder), **environment)
        try:
            yield server
        finally:
            server.stop()


def authorization(scope: str = "system/*.cruds", **claims: str) -> str:
    """Value of an Authorization header that lasts for a test module."""
    return f"Bearer {token(scope, expires_in=3600, **claims)}"


async def _serve(folder: Path, given: dict[str, Any]) -> None:
    from granian.constants import Interfaces
    from granian.server.embed import Server
    from joserfc.jwk import ECKey
    from starlette.applications import Starlette
    from starlette.routing import Mount, Route

    from fhir_server.app import FhirService, migrate
    from foramen.kernel.settings import Settings
    from foramen.kernel.tokens import TokenVerifier

    key = ECKey.import_key(given["key"])
    settings = Settings(home=folder / "home", port=given["port"])
    await asyncio.to_thread(migrate, given["database_url"])
    verifier = TokenVerifier(key, issuer=ORIGIN, audience=ORIGIN)
    service = FhirService(settings, given["database_url"], verifier)
    await service.start()
    app = Starlette(routes=[Route("/fhir", service.app), Mount("/fhir", service.app)])
    server = Server(app, address="127.0.0.1", port=given["port"], interface=Interfaces.ASGINL, log_enabled=False)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.stop)
    await server.serve()
    await service.stop()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]).parent, json.loads(Path(sys.argv[1]).read_text())))
