"""Worker processes that tests start, kill and stop, and what a study leaves that was answered once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ai_services.results.run_record import RunRecord, read_record
from tests.builders.installation import Installation
from tests.builders.prediction import findings

ONCE = {
    "Observation": len(findings()) + 1,
    "DiagnosticReport": 1,
    "CarePlan": 13,
    "RequestGroup": 1,
    "GuidanceResponse": 1,
    "Provenance": 1,
    "SEG": 1,
    "PR": 1,
    "SR": 1,
    "KO": 1,
}
"""What a study of the hand-made pipeline leaves, written once."""


class WorkerProcess:
    """A worker process that a test starts, kills and stops."""

    def __init__(self, system: Installation, runs: Path, **environment: str) -> None:
        self.runs, self.requests = runs, runs.with_name("requests")
        with (system.settings.home / "worker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.builders.worker_process"],
                env={**system.environment, "RUNS_FILE": str(runs), "REQUESTS_FILE": str(self.requests), **environment},
                cwd=Path(__file__).parents[2],
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(20)

    @property
    def started_runs(self) -> int:
        return len(self.runs.read_text(encoding="utf-8").splitlines()) if self.runs.exists() else 0

    def asked(self, method: str, path: str) -> int:
        """How often the archive was asked for exactly this path, by all workers of the test."""
        if not self.requests.exists():
            return 0
        return self.requests.read_text(encoding="utf-8").splitlines().count(f"{method} {path}")


StartWorker = Callable[..., WorkerProcess]


def report_of(system: Installation, task: dict[str, Any]) -> dict[str, Any]:
    """The report that a Task names as its output."""
    reference = next(item["valueReference"]["reference"] for item in task["output"])
    response = system.http.get(f"/fhir/{reference}")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def run_record_of(system: Installation, report: dict[str, Any]) -> RunRecord:
    """What the Provenance of a report says of its run."""
    (provenance,) = system.search(f"Provenance?target=DiagnosticReport/{report['id']}")
    record = read_record(provenance)
    assert record is not None
    return record
