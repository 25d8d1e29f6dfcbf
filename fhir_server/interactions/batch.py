"""batch: each entry for itself, each with its own answer. https://hl7.org/fhir/R4/http.html#transaction"""

from __future__ import annotations

import asyncio
import traceback
from http import HTTPStatus

from fhir_server.interactions.bundles import bundle, response_entry
from fhir_server.interactions.entries import Entry, outcome_bytes
from fhir_server.interactions.retrieve import retrieve
from fhir_server.server import Call
from foramen.kernel.errors import InteropError, UpstreamError
from foramen.kernel.log import get_log
from foramen.kernel.outcome import unexpected_error

_SIDE_BY_SIDE = 32
"""Creates of one batch under way at once; what other callers write meanwhile shares their transactions."""


async def run(call: Call, entries: list[Entry]) -> bytes:
    """Carry out the entries and return the batch-response.

    They are independent by definition. All the same each is carried out after those before it, except that creates
    which follow one another go side by side: each is answered for itself, but they share transactions and flushes.
    """
    answers: list[bytes] = []
    while len(answers) < len(entries):
        group = _together(entries, len(answers))
        # Every one is waited for: what has begun is answered before the batch is refused as a whole.
        outcomes = await asyncio.gather(*(_one(call, entry) for entry in group), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
            answers.append(outcome)
    # Each write has its own AuditEvent; the batch as a whole, with its reads and refusals, gets one more.
    call.audited = False
    return bundle("batch-response", answers)


def _together(entries: list[Entry], start: int) -> list[Entry]:
    """Return the entry at `start`, with the creates that follow if it is one."""
    end = start
    while end < min(len(entries), start + _SIDE_BY_SIDE) and _is_create(entries[end]):
        end += 1
    return entries[start : max(end, start + 1)]


def _is_create(entry: Entry) -> bool:
    operation = entry.operation
    return operation is not None and operation.method == "POST" and operation.query is None


async def _one(call: Call, entry: Entry) -> bytes:
    from fhir_server.interactions.transaction import result_entry
    from fhir_server.interactions.unit_of_work import perform

    try:
        if entry.fault is not None:
            raise entry.fault
        if entry.operation is not None:
            (result,) = await perform(call, [entry.operation])
            return result_entry(call, result)
        async with call.server.connections.lend() as connection:
            return await retrieve(call, connection, entry)
    except UpstreamError:
        raise  # Without a database no entry can be answered, and the client shall try the whole batch again.
    except InteropError as exc:
        return _refusal(exc)
    except Exception as exc:  # noqa: BLE001 - what the other entries did is done, and the client must hear of it
        # The frames without the message: that may quote a value of the request.
        frames = " < ".join(f"{f.filename}:{f.lineno}" for f in reversed(traceback.extract_tb(exc.__traceback__)))
        fault = f"{type(exc).__name__} {frames}"
        get_log().error("unexpected error", exception=fault, entry=entry.place, trace_id=call.trace_id)
        return _refusal(unexpected_error(call.trace_id))


def _refusal(error: InteropError) -> bytes:
    return response_entry(status=f"{error.status} {HTTPStatus(error.status).phrase}", outcome=outcome_bytes(error))
