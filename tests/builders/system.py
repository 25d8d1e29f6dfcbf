"""The real system as a subprocess on ports and a home of its own, as a user would start it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from foramen.supervisor.ports import free_port
from tests.builders.patience import patience

Found = TypeVar("Found")
_TOKEN_KEPT_S = 120.0


def wait_for(look: Callable[[], Found | None], timeout_s: float = 60.0, every_s: float = 0.1) -> Found:
    """Look until something is found; fail in words when it is not."""
    deadline = time.monotonic() + patience(timeout_s)
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(every_s)
    raise AssertionError(f"not found within {timeout_s:.0f} s: {getattr(look, '__name__', look)}")


@dataclass
class System:
    """One running installation."""

    home: Path
    port: int = field(default_factory=free_port)
    dicom_port: int = field(default_factory=free_port)
    orthanc_port: int = field(default_factory=free_port)
    dimse_port: int = field(default_factory=free_port)
    extra: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    lines: list[str] = field(default_factory=list)
    _tokens: dict[tuple[str, ...], tuple[float, str]] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Origin of the web server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment of every command against this installation."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("FORAMEN_")}
        return {
            **inherited,
            "FORAMEN_HOME": str(self.home),
            "FORAMEN_PORT": str(self.port),
            "FORAMEN_DICOM_PORT": str(self.dicom_port),
            "FORAMEN_ORTHANC_HTTP_PORT": str(self.orthanc_port),
            "FORAMEN_DIMSE_PORT": str(self.dimse_port),
            "FORAMEN_STABLE_STUDY_S": "1",
            "FORAMEN_DEFAULT_PATIENT_ID_ISSUER": "DEMO",
            **self.extra,
        }

    def command(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        """Run one `foramen` command and return what it printed; a failure shows both streams."""
        result = subprocess.run(
            [sys.executable, "-m", "foramen", *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert result.returncode == 0, f"{arguments}: {result.stdout}\n{result.stderr}"
        return result.stdout.strip()

    def start(self, timeout_s: float = 90) -> float:
        """Start `foramen up`; returns the seconds until it said ready."""
        began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "foramen", "up"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        wait_for(lambda: any(line.startswith("ready:") for line in self.lines) or self._ended(), timeout_s)
        if self._ended():
            raise AssertionError("up ended:\n" + "\n".join(self.lines) + self.logs())
        return time.monotonic() - began

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line.rstrip("\n"))

    def stop(self) -> int:
        """SIGTERM, and wait for a clean end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self.lines.clear()
        return status

    def pid_of(self, part: str) -> int:
        """Process id of a supervised part, taken from the process table."""
        assert self.process is not None
        words = {"web": "--migrate", "worker": "worker", "orthanc": "Orthanc", "dimse": "dimse"}[part]
        for child in psutil.Process(self.process.pid).children():
            if any(words in word for word in child.cmdline()):
                return child.pid
        raise AssertionError(f"{part} is not running")

    def logs(self) -> str:
        """The end of every log, for a failing test."""
        texts = []
        for path in sorted((self.home / "logs").glob("*.log")):
            tail = path.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
            texts.append(f"\n--- {path.name}\n" + "\n".join(tail))
        return "".join(texts)

    def token(self, scope: str = "system/*.cruds", *options: str) -> str:
        """Issue an operator token, or give the one issued for the same a moment ago: a command takes seconds."""
        issued_at, token = self._tokens.get((scope, *options), (0.0, ""))
        if time.monotonic() - issued_at > _TOKEN_KEPT_S:
            token = self.command("token", "--scopes", scope, *options)
            self._tokens[(scope, *options)] = (time.monotonic(), token)
        return token

    def client(self, scope: str = "system/*.cruds", *options: str) -> httpx.Client:
        """HTTP client with an operator token."""
        headers = {"Authorization": f"Bearer {self.token(scope, *options)}"}
        return httpx.Client(base_url=self.origin, headers=headers, timeout=60)


def search(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    """Resources of the first page of a FHIR search."""
    response = client.get(f"/fhir/{query}")
    assert response.status_code == 200, response.text
    return [entry["resource"] for entry in response.json().get("entry", []) if entry["search"]["mode"] == "match"]


def said(system: System, pattern: str) -> bool:
    """Whether the supervisor printed a line like this."""
    return any(re.search(pattern, line) for line in system.lines)
