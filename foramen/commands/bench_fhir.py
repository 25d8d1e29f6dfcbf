"""`foramen bench fhir`: read, create, patient+code+date search, newest by code, transaction; access and audit on.

Server (Granian), client and PostgreSQL share this machine; the client runs in the server's process, so figures are low.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import psutil
from joserfc import jwt
from joserfc.jwk import ECKey
from rich.console import Console
from rich.table import Table

from foramen.kernel.embedded_postgres import start_postgres, stop_postgres
from foramen.kernel.settings import Settings
from foramen.kernel.tokens import ALGORITHM, TOKEN_TYPE, TokenVerifier
from foramen.supervisor.ports import free_port
from terminology.systems import FINDING, OBSERVATION_CATEGORY, UCUM

HISTORY = Path("docs/benchmarks/history.jsonl")
_PATIENTS = 100
_BUNDLE = 100
_BUNDLES = 60
_REQUESTS = 2000
_CONNECTIONS = 16
_REPEATS = 3
_CODES = [f"F{number:02d}" for number in range(1, 22)]


def _observation(chooser: random.Random) -> dict[str, Any]:
    day = f"{chooser.randint(2020, 2026)}-{chooser.randint(1, 12):02d}-{chooser.randint(1, 28):02d}"
    return {
        "resourceType": "Observation",
        "status": "preliminary",
        "category": [{"coding": [{"system": OBSERVATION_CATEGORY, "code": "imaging"}]}],
        "code": {"coding": [{"system": FINDING, "code": chooser.choice(_CODES), "display": "SYNTHETIC"}]},
        "subject": {"reference": f"Patient/b{chooser.randrange(_PATIENTS)}"},
        "effectiveDateTime": f"{day}T10:00:00Z",
        "valueQuantity": {"value": round(chooser.uniform(1, 20), 2), "unit": "mm", "system": UCUM,
                          "code": "mm"},
        "device": {"reference": "Device/bench"},
        "derivedFrom": [{"reference": f"ImagingStudy/b{chooser.randrange(_PATIENTS)}"}],
    }  # fmt: skip


class _Client:
    """One keep-alive HTTP/1.1 connection; a general client would cost more than the server that is measured."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\nAccept: application/fhir+json\r\n"

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    def close(self) -> None:
        self._writer.close()

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        sent = f"Content-Type: application/fhir+json\r\nContent-Length: {len(body)}\r\n" if body else ""
        self._writer.write(f"{method} {path} HTTP/1.1\r\n{self._head}{sent}\r\n".encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        return int(head[9:12]), await self._reader.readexactly(length) if length else b""


Ask = Callable[[_Client, int], Coroutine[Any, Any, None]]


async def _rate(clients: list[_Client], count: int, ask: Ask) -> float:
    """Requests per second with all connections busy."""
    numbers = iter(range(count))

    async def worker(client: _Client) -> None:
        for number in numbers:
            await ask(client, number)

    began = time.perf_counter()
    await asyncio.gather(*(worker(client) for client in clients))
    return count / (time.perf_counter() - began)


async def _check(client: _Client, method: str, path: str, body: bytes, expected: int) -> bytes:
    status, content = await client.ask(method, path, body)
    if status != expected:
        raise RuntimeError(f"{method} {path.partition('?')[0]} answered {status}: {content[:300]!r}")
    return content


async def _figures(clients: list[_Client]) -> dict[str, list[float]]:
    chooser = random.Random(1)  # noqa: S311 - test data
    figures: dict[str, list[float]] = {}
    ids: list[str] = []

    def bundle() -> bytes:
        entries = [
            {"resource": _observation(chooser), "request": {"method": "POST", "url": "Observation"}}
            for _ in range(_BUNDLE)
        ]
        return orjson.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})

    async def load(client: _Client, _: int) -> None:
        answer = orjson.loads(await _check(client, "POST", "/fhir/", bundles.pop(), 200))
        ids.extend(entry["response"]["location"].split("/")[1] for entry in answer["entry"])

    async def create(client: _Client, _: int) -> None:
        await _check(client, "POST", "/fhir/Observation", created.pop(), 201)

    async def read(client: _Client, _: int) -> None:
        await _check(client, "GET", f"/fhir/Observation/{chooser.choice(ids)}", b"", 200)

    async def find(client: _Client, _: int) -> None:
        query = f"patient=b{chooser.randrange(_PATIENTS)}&code={FINDING}|{chooser.choice(_CODES)}&date=ge2023"
        await _check(client, "GET", f"/fhir/Observation?{query}", b"", 200)

    async def newest(client: _Client, _: int) -> None:
        await _check(client, "GET", f"/fhir/Observation?code={chooser.choice(_CODES)}&_sort=-date&_count=50", b"", 200)

    async def chained(client: _Client, _: int) -> None:
        query = f"patient.identifier=urn:bench|{chooser.randrange(_PATIENTS)}&code={chooser.choice(_CODES)}"
        await _check(client, "GET", f"/fhir/Observation?{query}", b"", 200)

    for number in range(_PATIENTS):
        patient = {
            "resourceType": "Patient",
            "id": f"b{number}",
            "identifier": [{"system": "urn:bench", "value": str(number)}],
        }
        await _check(clients[0], "PUT", f"/fhir/Patient/b{number}", orjson.dumps(patient), 201)
    for _ in range(_REPEATS):
        bundles = [bundle() for _ in range(_BUNDLES // _REPEATS)]
        rate = await _rate(clients, len(bundles), load)
        figures.setdefault("transaction, resources/s", []).append(rate * _BUNDLE)
        created = [orjson.dumps(_observation(chooser)) for _ in range(_REQUESTS)]
        figures.setdefault("create, requests/s", []).append(await _rate(clients, _REQUESTS, create))
        figures.setdefault("read, requests/s", []).append(await _rate(clients, _REQUESTS, read))
        figures.setdefault("patient+code+date search, requests/s", []).append(await _rate(clients, _REQUESTS, find))
        figures.setdefault("newest 50 by code, requests/s", []).append(await _rate(clients, _REQUESTS // 4, newest))
        figures.setdefault("chained search, requests/s", []).append(await _rate(clients, _REQUESTS // 4, chained))
    return figures


async def _measure(folder: Path, database_url: str) -> tuple[dict[str, list[float]], float]:
    # Granian and the service load here: importing this module must stay light.
    from granian.constants import Interfaces
    from granian.server.embed import Server

    from fhir_server.app import FhirService, migrate

    port = free_port()
    settings = Settings(home=folder, port=port)
    key = ECKey.generate_key("P-256", parameters={"kid": "bench"}, private=True)
    verifier = TokenVerifier(key, issuer=settings.issuer, audience=settings.origin)
    now = int(time.time())
    claims = {"iss": settings.issuer, "aud": settings.origin, "sub": "bench", "client_id": "bench",
              "scope": "system/*.cruds", "iat": now, "exp": now + 3600, "jti": "bench"}  # fmt: skip
    token = jwt.encode({"alg": ALGORITHM, "typ": TOKEN_TYPE, "kid": "bench"}, claims, key, algorithms=[ALGORITHM])
    migrate(database_url)
    service = FhirService(settings, database_url, verifier)
    await service.start()

    async def mounted(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await service.app({**scope, "root_path": "/fhir"}, receive, send)

    server = Server(mounted, address="127.0.0.1", port=port, interface=Interfaces.ASGINL, log_enabled=False)
    serving = asyncio.create_task(server.serve())
    clients = [_Client(port, token) for _ in range(_CONNECTIONS)]
    try:
        await _connect(clients)
        figures = await _figures(clients)
        resident = psutil.Process().memory_info().rss / 1e6
    finally:
        for client in clients:
            client.close()
        server.stop()
        await serving
        await service.stop()
    return figures, resident


async def _connect(clients: list[_Client]) -> None:
    for _ in range(100):
        try:
            await clients[0].open()
            break
        except ConnectionError:
            await asyncio.sleep(0.05)
    await asyncio.gather(*(client.open() for client in clients[1:]))


def run() -> None:
    """Measure, print a table of medians and ratios, and add a line to the history."""
    with tempfile.TemporaryDirectory(prefix="foramen-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        database_url = start_postgres(folder / "postgres")
        try:
            figures, resident = asyncio.run(_measure(folder, database_url))
        finally:
            stop_postgres(folder / "postgres")
    medians = {what: statistics.median(values) for what, values in figures.items()}
    table = Table("what", "median", "lowest", "highest", "ratio to read", title="foramen bench fhir")
    for what, values in figures.items():
        ratio = medians[what] / medians["read, requests/s"]
        table.add_row(what, f"{medians[what]:.0f}", f"{min(values):.0f}", f"{max(values):.0f}", f"{ratio:.2f}")
    table.add_row("resident with client and server in one process, MB", f"{resident:.0f}", "", "", "")
    Console().print(table)
    HISTORY.parent.mkdir(parents=True, exist_ok=True)
    entry = {
        "bench": "fhir",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "connections": _CONNECTIONS,
        "figures": {what: round(value) for what, value in medians.items()},
        "resident_mb": round(resident),
    }
    with HISTORY.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
