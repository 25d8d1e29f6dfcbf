"""delete: `DELETE /Type/id` and `DELETE /Type?query` (one match, or as many as the settings allow). https://hl7.org/fhir/R4/http.html#delete"""

from __future__ import annotations

from starlette.responses import Response

from fhir_server.interactions.operations import (
    Operation,
    check_identity,
    check_writable,
    parse_etag,
    parse_unmodified_since,
)
from fhir_server.interactions.responses import no_content
from fhir_server.interactions.unit_of_work import perform
from fhir_server.server import Call
from foramen.kernel.http_edge import header


async def delete(call: Call) -> Response:
    """Delete a resource; its versions stay readable."""
    check_writable(call.resource_type, "DELETE")
    operation = Operation(
        "DELETE",
        call.resource_type,
        call.logical_id or None,
        if_match=parse_etag(header(call.request, b"if-match")),
        unmodified_since=parse_unmodified_since(header(call.request, b"if-unmodified-since")),
        multiple=not call.logical_id,
        query=None if call.logical_id else call.request.url.query,
    )
    check_identity(operation)
    (result,) = await perform(call, [operation])
    return no_content(result.version)
