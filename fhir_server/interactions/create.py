"""create: `POST /Type`, conditional with If-None-Exist. https://hl7.org/fhir/R4/http.html#create"""

from __future__ import annotations

from starlette.responses import Response

from fhir_server.interactions.body import resource_of
from fhir_server.interactions.operations import Operation, check_identity
from fhir_server.interactions.responses import write_response
from fhir_server.interactions.unit_of_work import perform
from fhir_server.server import Call


async def create(call: Call) -> Response:
    """Create a resource; the id in the body is ignored, as the server assigns one."""
    operation = Operation(
        "POST",
        call.resource_type,
        resource=await resource_of(call),
        query=call.request.headers.get("if-none-exist"),
    )
    check_identity(operation)
    (result,) = await perform(call, [operation])
    call.entity = result.reference
    return write_response(call, result)
