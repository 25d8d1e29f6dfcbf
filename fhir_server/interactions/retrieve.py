"""GET and HEAD inside a Bundle: read, vread, search and history by an entry's URL. https://hl7.org/fhir/R4/http.html#transaction"""

from __future__ import annotations

from typing import Any

from fhir_server.interactions.bundles import response_entry
from fhir_server.interactions.entries import Entry
from fhir_server.interactions.history import history_bundle
from fhir_server.interactions.operations import check_type
from fhir_server.interactions.read import visible
from fhir_server.interactions.responses import is_unchanged
from fhir_server.interactions.search import pairs_of, run
from fhir_server.interactions.subset import subset, wanted_parts
from fhir_server.server import Call
from fhir_server.store import reading
from fhir_server.store.changes import Stored
from foramen.kernel.errors import InvalidRequestError

_MAX_DIGITS = 10


async def retrieve(call: Call, connection: Any, entry: Entry) -> bytes:
    """Answer one GET entry.

    Raises
    ------
    InteropError
        As the same GET outside a Bundle would.
    """
    path, _, query = entry.url.partition("?")
    parts = [part for part in path.split("/") if part]
    pairs = pairs_of(query)
    if "AuditEvent" in entry.url or parts == ["_history"]:
        await call.server.audit_indexer.settle()
    if parts and parts[0] != "_history":
        check_type(parts[0])
    match parts:
        case ["_history"]:
            return _content(entry, await history_bundle(call, connection, None, None, pairs))
        case [resource_type]:
            call.access.context.reach(resource_type, "s")
            return _content(entry, await run(call, connection, resource_type, pairs))
        case [resource_type, "_history"]:
            return _content(entry, await history_bundle(call, connection, resource_type, None, pairs))
        case [resource_type, logical_id, "_history"]:
            return _content(entry, await history_bundle(call, connection, resource_type, logical_id, pairs))
        case [resource_type, logical_id] if not logical_id.startswith(("$", "_")):
            found = await reading.read(connection, resource_type, logical_id)
            await call.access.learn(connection, found)
            return _version(call, entry, resource_type, found, dict(pairs))
        case [resource_type, logical_id, "_history", version] if version.isdecimal() and len(version) < _MAX_DIGITS:
            found = await reading.vread(connection, resource_type, logical_id, int(version))
            await call.access.learn(connection, found)
            return _version(call, entry, resource_type, found, dict(pairs))
    raise InvalidRequestError(
        "GET in an entry reads, searches or asks for a history; operations are not supported there",
        issue_code="not-supported",
    )


def _content(entry: Entry, content: bytes) -> bytes:
    return response_entry(status="200 OK", content=None if entry.method == "HEAD" else content)


def _version(call: Call, entry: Entry, resource_type: str, found: Stored | None, asked: dict[str, str]) -> bytes:
    compartment = call.access.compartment_key(resource_type, "r")
    stored = visible(found, resource_type, compartment, call.access)
    call.shown.append(stored.reference)
    if is_unchanged(entry.if_none_match, entry.if_modified_since, stored.version, stored.updated):
        return response_entry(status="304 Not Modified", version=stored.version, updated=stored.updated)
    content = None
    if entry.method != "HEAD":
        content = subset(stored.content or b"{}", resource_type, *wanted_parts(asked))
    return response_entry(status="200 OK", content=content, version=stored.version, updated=stored.updated)
