"""GET inside a Bundle: read, vread and search by an entry's URL. https://hl7.org/fhir/R4/http.html#transaction"""

from __future__ import annotations

from typing import Any

from fhir_server.interactions.bundles import response_entry
from fhir_server.interactions.entries import Entry
from fhir_server.interactions.operations import check_type
from fhir_server.interactions.read import visible
from fhir_server.interactions.responses import etag
from fhir_server.interactions.search import pairs_of, run
from fhir_server.server import Call
from fhir_server.store import reading
from foramen.kernel.errors import InvalidRequestError


async def retrieve(call: Call, connection: Any, entry: Entry) -> bytes:
    """Answer one GET entry.

    Raises
    ------
    InteropError
        As the same GET outside a Bundle would.
    """
    path, mark, query = entry.url.partition("?")
    parts = [part for part in path.split("/") if part]
    if not parts:
        raise InvalidRequestError("GET in an entry reads or searches one resource type", issue_code="not-supported")
    check_type(parts[0])
    if len(parts) == 1:
        call.access.context.reach(parts[0], "s")
        return response_entry(status="200 OK", content=await run(call, connection, parts[0], pairs_of(query)))
    if len(parts) == 2 and not mark:
        compartment = call.access.compartment_key(parts[0], "r")
        stored = visible(await reading.read(connection, parts[0], parts[1]), parts[0], compartment)
    elif len(parts) == 4 and parts[2] == "_history" and parts[3].isdecimal() and len(parts[3]) < 10:
        compartment = call.access.compartment_key(parts[0], "r")
        found = await reading.vread(connection, parts[0], parts[1], int(parts[3]))
        stored = visible(found, parts[0], compartment)
    else:
        raise InvalidRequestError("This GET is not supported inside a Bundle", issue_code="not-supported")
    if entry.if_none_match in (etag(stored.version), f'"{stored.version}"'):
        return response_entry(status="304 Not Modified", version=stored.version, updated=stored.updated)
    return response_entry(status="200 OK", content=stored.content, version=stored.version, updated=stored.updated)
