"""update: `PUT /Type/id` (creates when new) and `PUT /Type?query`. https://hl7.org/fhir/R4/http.html#update"""

from __future__ import annotations

from starlette.responses import Response

from fhir_server.interactions.body import resource_of
from fhir_server.interactions.operations import (
    Operation,
    check_identity,
    check_writable,
    parse_etag,
    parse_if_none_match,
    parse_unmodified_since,
)
from fhir_server.interactions.responses import write_response
from fhir_server.interactions.unit_of_work import perform
from fhir_server.server import Call
from foramen.kernel.http_edge import header


async def update(call: Call) -> Response:
    """Replace a resource, or create it under the client's id."""
    check_writable(call.resource_type, "PUT")
    operation = Operation(
        "PUT",
        call.resource_type,
        call.logical_id or None,
        resource=await resource_of(call),
        if_match=parse_etag(header(call.request, b"if-match")),
        unmodified_since=parse_unmodified_since(header(call.request, b"if-unmodified-since")),
        must_be_new=parse_if_none_match(header(call.request, b"if-none-match")),
        query=None if call.logical_id else call.request.url.query,
    )
    check_identity(operation)
    (result,) = await perform(call, [operation])
    call.entity = result.reference
    return write_response(call, result)
