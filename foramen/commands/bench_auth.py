"""`foramen bench auth`: code-flow sign-ins per second without password hashing; what tokens, policy and filters cost.

A real web process, a real PostgreSQL, audit on and delivered to a FHIR process; wrk plays the browsers and the app,
with sessions that exist already, PKCE and one of our own apps (no consent page). All of them share this machine's
cores: the CPU time of the web process is printed beside the rate, because it does not depend on who else is busy.
"""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import psutil

from foramen.commands.bench_fhir import await_ready
from foramen.commands.bench_filters import costs
from foramen.commands.bench_page import HISTORY, page, remember, show, write_page
from foramen.kernel.embedded_postgres import start_postgres, stop_postgres
from foramen.supervisor.ports import free_port

GOALS = {
    "sign-ins/s": 300.0, "verification, µs": 50.0, "policy cached, µs": 20.0, "policy cold, µs": 2000.0, "filter": 1.2,
}  # fmt: skip
_CONNECTIONS, _PEOPLE = 16, 50
_VERIFIER = "SYNTHETIC-" + "v" * 54
_VERIFICATIONS = 20_000
_DECISIONS = 500
_COLUMNS = ("figure", "median", "goal", "figure ÷ goal")


@dataclass(frozen=True, slots=True)
class SignIns:
    """One run of wrk: sign-ins per second, p99 of one answer in ms, CPU µs of the web process for one sign-in."""

    rate: float
    p99_ms: float
    cpu_us: float


@contextmanager
def _running(folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    """An authorization server with its record beside it; gives its port and process."""
    port, fhir_port = free_port(), free_port()
    url = start_postgres(folder / "postgres")
    shared = {**os.environ, "FORAMEN_HOME": str(folder), "FORAMEN_DATABASE_URL": url}
    public = {"FORAMEN_PUBLIC_URL": f"http://127.0.0.1:{port}", "FORAMEN_INTERNAL_URL": f"http://127.0.0.1:{fhir_port}"}
    started: list[subprocess.Popen[bytes]] = []
    try:
        for service, own_port in (("fhir", fhir_port), ("identity", port)):
            command = [sys.executable, "-m", "foramen", "serve", "--only", service, "--migrate"]
            environment = {**shared, **public, "FORAMEN_PORT": str(own_port)}
            log = folder / f"{service}.log"
            with log.open("wb") as file:
                started.append(subprocess.Popen(command, env=environment, stdout=file, stderr=file))
            await_ready(own_port, started[-1], log, first=True)
        _write_requests(folder, url, port)
        yield port, psutil.Process(started[-1].pid)
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)
        stop_postgres(folder / "postgres")


def _write_requests(folder: Path, database_url: str, port: int) -> None:
    """Make SYNTHETIC people who have signed in, and write what their browsers and the app send."""
    from foramen.identity.app import ensure_user
    from foramen.identity.cookies import SESSION
    from foramen.identity.database import transaction, utc_now
    from foramen.identity.people.sessions import start_session

    origin = f"http://127.0.0.1:{port}"
    cookies = []
    for number in range(_PEOPLE):
        name = f"SYNTHETIC-{number}"
        ensure_user(database_url, name, f"a long password {number}", "physician", f"dr{number}")
        with transaction(database_url) as connection:
            cookies.append(f"{SESSION}={start_session(connection, name, None, utc_now())}")
    challenge = base64.urlsafe_b64encode(hashlib.sha256(_VERIFIER.encode()).digest()).rstrip(b"=").decode()
    scope = "openid fhirUser profile online_access user/*.rs user/Task.rus"
    query = {
        "response_type": "code", "client_id": "portal", "redirect_uri": f"{origin}/", "scope": scope, "state": "s" * 16,
        "aud": f"{origin}/fhir", "code_challenge": challenge, "code_challenge_method": "S256", "nonce": "n" * 16,
    }  # fmt: skip
    exchange = {
        "grant_type": "authorization_code", "redirect_uri": f"{origin}/", "client_id": "portal",
        "code_verifier": _VERIFIER,
    }  # fmt: skip
    (folder / "cookies").write_text("\n".join(cookies), encoding="utf-8")
    (folder / "query").write_text(urlencode(query), encoding="utf-8")
    (folder / "exchange").write_text(urlencode(exchange), encoding="utf-8")


def _sign_ins(folder: Path, port: int, process: psutil.Process, seconds: int) -> SignIns:
    script = Path(__file__).with_name("bench_auth.lua")
    command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script),
               f"http://127.0.0.1:{port}"]  # fmt: skip
    before = process.cpu_times()
    done = subprocess.run(
        command, env={**os.environ, "FOLDER": str(folder)}, capture_output=True, text=True, check=True
    )
    after = process.cpu_times()
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    made, microseconds, failed, p99 = map(float, line.split()[1:])
    if failed or not made:
        raise RuntimeError(f"{failed:.0f} answers were not those of a sign-in, {made:.0f} were")
    spent = after.user + after.system - before.user - before.system
    return SignIns(made / microseconds * 1e6, p99 / 1000, spent / made * 1e6)


def verification_us(folder: Path) -> tuple[float, float]:
    """CPU µs of verifying a token that was seen before, and one that was not (signature included)."""
    from foramen.identity.oauth.operator_token import operator_token
    from foramen.identity.oauth.revocation_list import RevocationAwareVerifier
    from foramen.identity.oauth.signing_keys import SigningKeys
    from foramen.kernel.settings import Settings

    settings = Settings(home=folder)
    verifier = RevocationAwareVerifier(SigningKeys(folder, 3600), settings.issuer, settings.origin)
    tokens = [operator_token(settings, None, "system/*.rs") for _ in range(300)]
    began = time.process_time()
    for token in tokens:
        verifier.verify(token)
    first = (time.process_time() - began) / len(tokens) * 1e6
    verifier.set_revoked({str(number) for number in range(1000)})
    texts = [token.encode().decode() for token in tokens]  # other objects, as each request brings
    began = time.process_time()
    for number in range(_VERIFICATIONS):
        verifier.verify(texts[number % len(texts)])
    return (time.process_time() - began) / _VERIFICATIONS * 1e6, first


def decision_us() -> tuple[float, float]:
    """CPU µs of a decision of the policy that was asked before, and of one that was not."""
    from foramen.identity.policy import evaluate

    def question(number: int) -> dict[str, object]:
        return {
            "role": "physician", "granted": [], "lent": [], "withdrawn": [], "scopes": ["user/*.rs"], "patient": None,
            "type": "Observation", "action": "r", "subject": f"SYNTHETIC-{number}", "verified": True, "consent": None,
            "institutions": "separate", "institution": "a", "managed_by": "a", "break_glass": None,
        }  # fmt: skip

    evaluate("decision.answer", question(-1))
    spent = []
    for _ in ("cold", "cached"):
        began = time.process_time()
        for number in range(_DECISIONS):
            evaluate("decision.answer", question(number))
        spent.append((time.process_time() - began) / _DECISIONS * 1e6)
    return spent[1], spent[0]


def run(seconds: int, repeats: int) -> None:
    """Measure, print a table, write its page, and add a line to the history."""
    if shutil.which("wrk") is None:
        raise SystemExit("foramen bench auth needs wrk (Debian package wrk)")
    with tempfile.TemporaryDirectory(prefix="foramen-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with _running(folder) as (port, process):
            _sign_ins(folder, port, process, 2)
            runs = [_sign_ins(folder, port, process, seconds) for _ in range(repeats)]
        known_us, first_us = verification_us(folder)
        cached_us, cold_us = decision_us()
    with tempfile.TemporaryDirectory(prefix="foramen-bench-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        filters = costs(Path(name), seconds, repeats)
    rate = statistics.median(one.rate for one in runs)
    cpu_us = statistics.median(one.cpu_us for one in runs)
    p99_ms = statistics.median(one.p99_ms for one in runs)
    rows = _rows(rate, cpu_us, p99_ms, (known_us, first_us), {"cached": cached_us, "cold": cold_us}, filters)
    show("foramen bench auth", _COLUMNS, rows)
    entry = {
        "connections": _CONNECTIONS, "sign_ins_per_second": round(rate), "sign_in_cpu_us": round(cpu_us),
        "p99_ms": round(p99_ms, 1), "verification_us": round(known_us, 2),
        "verification_first_us": round(first_us, 1), "policy_cached_us": round(cached_us, 1),
        "policy_cold_us": round(cold_us, 1), "filters": {key: round(value, 2) for key, value in filters.items()},
        "goals": GOALS,
    }  # fmt: skip
    remember("auth", entry, HISTORY)
    write_page("auth", _page(rows, seconds, repeats), HISTORY)


def _rows(
    rate: float,
    cpu_us: float,
    p99_ms: float,
    verification: tuple[float, float],
    decisions: dict[str, float],
    filters: dict[str, float],
) -> list[tuple[str, ...]]:
    goal = GOALS["sign-ins/s"]
    rows: list[tuple[str, ...]] = [
        ("code-flow sign-ins/s", f"{rate:.0f}", f"≥ {goal:.0f}", f"{rate / goal:.2f}"),
        ("CPU of the web process for one sign-in, µs", f"{cpu_us:.0f}", f"≤ {1e6 / goal:.0f}",
         f"{cpu_us * goal / 1e6:.2f}"),
        ("p99 of one answer, ms", f"{p99_ms:.1f}", "", ""),
    ]  # fmt: skip
    known_us, first_us = verification
    goal = GOALS["verification, µs"]
    rows.append(("verification on the hot path, µs", f"{known_us:.2f}", f"≤ {goal:.0f}", f"{known_us / goal:.2f}"))
    rows.append(("verification of a token not seen before, µs", f"{first_us:.1f}", "", ""))
    for what, spent in decisions.items():
        goal = GOALS[f"policy {what}, µs"]
        rows.append((f"decision of the policy, {what}, µs", f"{spent:.1f}", f"≤ {goal:.0f}", f"{spent / goal:.2f}"))
    goal = GOALS["filter"]
    rows += [(f"search with {what} ÷ without", f"{ratio:.2f}", f"≤ {goal}", f"{ratio / goal:.2f}")
             for what, ratio in filters.items()]  # fmt: skip
    return rows


def _page(rows: list[tuple[str, ...]], seconds: int, repeats: int) -> str:
    preface = [
        f"Written by `foramen bench auth --seconds {seconds} --repeats {repeats}`, {datetime.now(UTC):%Y-%m-%d}, "
        f"{os.cpu_count()} cores",
        f"shared by server, record, database and load generator, Python {platform.python_version()}; audit on.",
    ]
    return page("Identity: sign-ins, tokens, policy and filters", preface, _COLUMNS, rows)
