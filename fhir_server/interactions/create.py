"""create: `POST /Type`, conditional with If-None-Exist. https://hl7.org/fhir/R4/http.html#create"""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.responses import Response

from fhir_server.interactions.body import resource_of
from fhir_server.interactions.operations import Operation, check_identity
from fhir_server.interactions.responses import write_response
from fhir_server.interactions.search import pairs_of
from fhir_server.interactions.unit_of_work import perform
from fhir_server.server import Call
from foramen.kernel.http_edge import header


async def create(call: Call) -> Response:
    """Create a resource; the id in the body is ignored, as the server assigns one."""
    operation = Operation(
        "POST",
        call.resource_type,
        resource=await resource_of(call),
        query=header(call.request, b"if-none-exist") or _condition(call),
    )
    check_identity(operation)
    (result,) = await perform(call, [operation])
    call.entity = result.reference
    return write_response(call, result)


def _condition(call: Call) -> str | None:
    """Search of the URL: what `fhirpy` sends in place of If-None-Exist; to leave it unread would create a double."""
    query = call.request.scope["query_string"]
    if not query:
        return None
    pairs = [(n, v) for n, v in pairs_of(query.decode("latin-1")) if n not in ("_format", "_pretty")]
    return urlencode(pairs) or None
