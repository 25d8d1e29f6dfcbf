"""vread: `GET /Type/id/_history/version`. https://hl7.org/fhir/R4/http.html#vread"""

from __future__ import annotations

from starlette.responses import Response

from fhir_server.interactions import binary
from fhir_server.interactions.read import note_patient, visible
from fhir_server.interactions.responses import content_response, not_modified, version_headers
from fhir_server.interactions.subset import subset_of_query
from fhir_server.server import Call
from fhir_server.store import reading

_MAX_DIGITS = 9


async def vread(call: Call) -> Response:
    """Return one version."""
    compartment = call.access.compartment_key(call.resource_type, "r")
    version = call.version_id
    found = None
    if version.isascii() and version.isdecimal() and len(version) <= _MAX_DIGITS:
        async with call.server.connections.lend() as connection:
            found = await reading.vread(connection, call.resource_type, call.logical_id, int(version))
            await call.access.learn(connection, found)
    stored = visible(found, call.resource_type, compartment, call.access)
    note_patient(call, stored)
    if not_modified(call.request, stored.version, stored.updated):
        return Response(status_code=304, headers=version_headers(stored.version, stored.updated))
    if stored.resource_type == "Binary" and (answer := binary.content_response(call, stored)) is not None:
        return answer
    content = subset_of_query(call.request, stored.content or b"")
    return content_response(content, stored.version, stored.updated)
