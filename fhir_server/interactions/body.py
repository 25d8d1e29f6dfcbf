"""Read one resource from a request body and check it.

https://hl7.org/fhir/R4/http.html#create
"""

from __future__ import annotations

from fhir_server.interactions.responses import check_content_type
from fhir_server.model.resource import Resource, parse_resource
from fhir_server.model.validation import validate
from fhir_server.server import Call
from foramen.kernel.http_edge import read_body


async def resource_of(call: Call) -> Resource:
    """Return the valid resource in the body.

    Raises
    ------
    InteropError
        415, 413, 400 or 422.
    """
    check_content_type(call.request)
    body = await read_body(call.request, call.server.max_body_bytes)
    resource = parse_resource(body, call.server.limits.max_depth)
    if resource.resource_type == call.resource_type:
        validate(resource)
    return resource
