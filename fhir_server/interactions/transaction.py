"""transaction and batch: `POST /` with a Bundle. https://hl7.org/fhir/R4/http.html#transaction"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from fhir_server.interactions import batch
from fhir_server.interactions.body import json_body
from fhir_server.interactions.bundles import bundle, response_entry
from fhir_server.interactions.entries import Entry, at_entry, parse_bundle
from fhir_server.interactions.operations import Result
from fhir_server.interactions.responses import MEDIA_TYPE
from fhir_server.interactions.retrieve import retrieve
from fhir_server.interactions.unit_of_work import perform
from fhir_server.model.resource import LARGE_BYTES
from fhir_server.server import Call
from foramen.kernel.errors import InteropError

_PHRASES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 2}


async def transaction_or_batch(call: Call) -> Response:
    """Carry out a Bundle: all or nothing (transaction), or each entry for itself (batch)."""
    body = await json_body(call)
    if len(body) > LARGE_BYTES:  # Parsing a large Bundle would hold up every other request of this process.
        kind, entries = await run_in_threadpool(parse_bundle, body, call.server)
    else:
        kind, entries = parse_bundle(body, call.server)
    call.audit_code = kind
    if kind == "batch":
        return Response(await batch.run(call, entries), media_type=MEDIA_TYPE)
    return Response(await _transaction(call, entries), media_type=MEDIA_TYPE)


async def _transaction(call: Call, entries: list[Entry]) -> bytes:
    for entry in entries:
        if entry.fault is not None:
            raise entry.fault
    writes = sorted((e for e in entries if e.operation is not None), key=lambda e: _ORDER[e.method])
    reads = [entry for entry in entries if entry.operation is None]
    answers: dict[int, bytes] = {}

    def answer(results: list[Result]) -> bytes:
        for entry, result in zip(writes, results, strict=True):
            answers[entry.place] = result_entry(call, result)
        return bundle("transaction-response", [answers[entry.place] for entry in entries])

    async def before_commit(connection: Any, results: list[Result]) -> None:
        for entry in reads:
            try:
                answers[entry.place] = await retrieve(call, connection, entry)
            except InteropError as exc:
                raise at_entry(entry.place, exc) from exc
        if call.committing is not None:
            await call.committing(connection, answer(results))

    operations = [entry.operation for entry in writes if entry.operation is not None]
    if operations:
        return answer(await perform(call, operations, before_commit if reads or call.committing else None))
    async with call.server.connections.lend() as connection, connection.transaction():
        await before_commit(connection, [])
    return answer([])


def result_entry(call: Call, result: Result) -> bytes:
    """Answer one write of a Bundle."""
    status = _PHRASES[result.status]
    if result.version is None or result.status == HTTPStatus.NO_CONTENT:
        return response_entry(status=status, version=result.version)
    return response_entry(
        status=status,
        location=f"{result.reference}/_history/{result.version}",
        version=result.version,
        updated=result.updated,
        content=result.content if call.full else None,
    )
