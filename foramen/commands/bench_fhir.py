"""`foramen bench fhir`: the rates of a real web process over a growing record; access checks and audit on.

wrk asks (requests), our own generator writes (transactions, import, export); both, the web process and PostgreSQL share
this machine's cores. Each figure: median of the repeats, p99 of the answer times, ratio to the first size.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
from rich.console import Console
from rich.table import Table

from foramen.commands import bench_fhir_load as load
from foramen.commands.bench_page import HISTORY, remember
from foramen.kernel.embedded_postgres import start_postgres, stop_postgres
from foramen.supervisor.ports import free_port
from terminology.systems import FINDING

GOALS = {
    "read": 6000,
    "crud": 2500,
    "transaction": 4000,
    "patient_code_date": 5000,
    "newest": 3000,
    "export": 40_000,
    "import": 8000,
}
"""Goals per second; of `chained` the goal is a p99 of 50 ms, of the web process 300 MB."""
_WRK_MODES = ("read", "patient_code_date", "newest", "chained", "create", "crud")
_CONNECTIONS = 32
_FEW_CONNECTIONS = {"chained": 8}
"""Of this figure the goal is an answer time and not a rate: more connections would measure the queue before it."""
_SUSTAINED_S = 30
_SCOPES = "system/*.cruds foramen/admin"


@dataclass
class Figure:
    """Rates and answer times of one figure at one size."""

    rates: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Median rate."""
        return statistics.median(self.rates)


@dataclass
class Bench:
    """A server under test."""

    folder: Path
    database_url: str
    port: int
    token: str
    processes: list[psutil.Process]
    seconds: int
    repeats: int
    seed: int = 1
    patients: int = 0
    ids: list[str] = field(default_factory=list)

    def wrk(self, mode: str, seconds: int | None = None) -> tuple[float, float, float]:
        """One run of wrk; returns requests per second, median and p99 in milliseconds.

        It begins when the audit records of what was done before are indexed, so that no figure pays for another.
        """
        self.index_audit()
        self.seed += 1
        environment = {
            **os.environ, "MODE": mode, "FOLDER": str(self.folder), "PATIENTS": str(self.patients),
            "FINDING": FINDING, "SEED": str(self.seed),
        }  # fmt: skip
        script = Path(__file__).with_name("bench_fhir.lua")
        connections = _FEW_CONNECTIONS.get(mode, _CONNECTIONS)
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds or self.seconds}s", "--timeout", "30s",
                   "-s", str(script), f"http://127.0.0.1:{self.port}"]  # fmt: skip
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
        requests, microseconds, failed, p50, p99 = map(float, line.split()[1:])
        if failed:
            raise RuntimeError(f"{mode}: {failed:.0f} of {requests:.0f} requests failed")
        return requests / microseconds * 1e6, p50 / 1000, p99 / 1000

    def grow(self, size: int) -> float:
        """Fill the record up to `size` Observations; returns resources per second."""
        patients = max(100, size // load.OBSERVATIONS_PER_PATIENT)
        load.transactions(self.port, self.token, list(load.context_bundles(self.patients, patients)))
        self.patients = patients
        rates = []
        while len(self.ids) < size:
            self.seed += 1
            count = min(100, (size - len(self.ids)) // 100)
            rate, ids = load.transactions(self.port, self.token, load.bundles(count, patients, self.seed))
            rates.append(rate)
            self.ids += ids
        load.write_ids(self.folder, self.ids)
        self.settle()
        return statistics.median(rates)

    def settle(self) -> None:
        """Bring the database to rest after the load, as autovacuum and the checkpointer do within some minutes."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE)")
            connection.execute("CHECKPOINT")

    def measure(self) -> dict[str, Figure]:
        """All figures at the present size."""
        figures: dict[str, Figure] = {}
        for _ in range(self.repeats):
            for mode in _WRK_MODES:
                rate, p50, p99 = self.wrk(mode)
                figure = figures.setdefault(mode, Figure())
                figure.rates.append(rate)
                figure.p50_ms.append(p50)
                figure.p99_ms.append(p99)
            self.seed += 1
            rate, ids = load.transactions(self.port, self.token, load.bundles(60, self.patients, self.seed))
            self.ids += ids
            figures.setdefault("transaction", Figure()).rates.append(rate)
            figures.setdefault("export", Figure()).rates.append(load.bulk_export(self.port, self.token)[0])
            rate = load.bulk_import(self.port, self.token, 10_000, self.patients, self.seed)
            figures.setdefault("import", Figure()).rates.append(rate)
        return figures

    def resident_mb(self) -> float:
        """Resident memory of the largest web process."""
        return max(float(process.memory_info().rss) for process in self.processes) / 1e6

    def drain(self) -> float:
        """Audit records indexed per second once the load has ended (asking for AuditEvents indexes all of them)."""
        before = self.index_audit()
        self.wrk("read")
        began = time.perf_counter()
        after = self.index_audit()
        return (after - before) / (time.perf_counter() - began)

    def index_audit(self) -> int:
        """Have all audit records indexed; returns how many AuditEvents there are."""
        client = load.Client(self.port, self.token)
        answer = client.ask("GET", "/fhir/AuditEvent?_summary=count")
        return int(json.loads(load.expect(answer, 200)[1])["total"])


@contextmanager
def running(folder: Path, seconds: int, repeats: int, processes: int) -> Iterator[Bench]:
    """Web processes on an empty record of their own."""
    from foramen.identity.oauth.operator_token import operator_token
    from foramen.kernel.settings import Settings

    port = free_port()
    url = start_postgres(folder / "postgres")
    environment = {
        **os.environ, "FORAMEN_HOME": str(folder), "FORAMEN_PORT": str(port), "FORAMEN_DATABASE_URL": url,
        "FORAMEN_FHIR_JOBS_PER_CLIENT": "100",
    }  # fmt: skip
    command = [sys.executable, "-m", "foramen", "serve", "--only", "fhir", "--migrate"]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(processes):
            with (folder / f"web{number}.log").open("wb") as log:
                started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            await_ready(port, started[-1], folder / f"web{number}.log", first=number == 0)
        token = operator_token(Settings(home=folder, port=port), None, _SCOPES, expires_in_s=86_400)
        (folder / "token").write_text(token, encoding="utf-8")
        yield Bench(folder, url, port, token, [psutil.Process(p.pid) for p in started], seconds, repeats)
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)
        stop_postgres(folder / "postgres")


def await_ready(port: int, process: subprocess.Popen[bytes], log: Path, *, first: bool) -> None:
    """Wait until a web process answers; one that has ended tells why."""
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(log.read_text(encoding="utf-8")[-2000:])
        # A second process shares the port: that it listens is seen at its own sockets.
        listening = first or any(c.status == psutil.CONN_LISTEN for c in psutil.Process(process.pid).net_connections())
        try:
            if listening and load.Client(port, "").ask("GET", "/readyz")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the web process did not start")


def run(sizes: list[int], seconds: int, repeats: int, processes: int) -> None:
    """Measure at each size, print a table, and add a line to the history."""
    if shutil.which("wrk") is None:
        raise SystemExit("foramen bench fhir needs wrk (Debian package wrk)")
    console = Console(width=120)
    results: dict[int, dict[str, Figure]] = {}
    with tempfile.TemporaryDirectory(prefix="foramen-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with running(folder, seconds, repeats, processes) as bench:
            for size in sorted(sizes):
                console.print(f"growing to {size} Observations …")
                bench.grow(size)
                results[size] = bench.measure()
                console.print(_table({size: results[size]}))
            sustained = bench.wrk("read", _SUSTAINED_S)[0]
            drained, resident = bench.drain(), bench.resident_mb()
    console.print(_table(results))
    console.print(
        f"read for {_SUSTAINED_S} s, its audit records indexed meanwhile: {sustained:.0f}/s; indexed once it is quiet: "
        f"{drained:.0f}/s; largest web process {resident:.0f} MB (goal 300)"
    )
    _remember(results, sustained, drained, resident, processes)


def _table(results: dict[int, dict[str, Figure]]) -> Table:
    table = Table("what", "size", "median/s", "lowest", "highest", "p50 ms", "p99 ms", "of goal", "of first size",
                  title="foramen bench fhir")  # fmt: skip
    first = next(iter(results.values()))
    for mode in first:
        for size, figures in results.items():
            figure = figures[mode]
            goal = f"{figure.rate / GOALS[mode]:.2f}" if mode in GOALS else ""
            p50 = f"{statistics.median(figure.p50_ms):.1f}" if figure.p50_ms else ""
            p99 = f"{statistics.median(figure.p99_ms):.1f}" if figure.p99_ms else ""
            table.add_row(mode, f"{size}", f"{figure.rate:.0f}", f"{min(figure.rates):.0f}", f"{max(figure.rates):.0f}",
                          p50, p99, goal, f"{figure.rate / first[mode].rate:.2f}")  # fmt: skip
    return table


def _remember(
    results: dict[int, dict[str, Figure]], sustained: float, drained: float, resident: float, processes: int
) -> None:
    entry = {
        "connections": _CONNECTIONS,
        "web_processes": processes,
        "per_second": {
            str(size): {mode: round(figure.rate) for mode, figure in figures.items()}
            for size, figures in results.items()
        },
        "p99_ms": {
            str(size): {m: round(statistics.median(f.p99_ms), 1) for m, f in figures.items() if f.p99_ms}
            for size, figures in results.items()
        },
        "read_sustained_per_second": round(sustained),
        "audit_indexed_per_second": round(drained),
        "resident_mb": round(resident),
    }
    remember("fhir", entry, HISTORY)
