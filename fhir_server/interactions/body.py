"""The one door for request bodies: their media type, their size, their compression, XML into JSON, one valid resource.

https://hl7.org/fhir/R4/http.html#create, #mime-type, #compression
"""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from fhir_server.formats.compression import decompress
from fhir_server.formats.media_types import FHIR_JSON, FHIR_XML, JSON_NAMES, XML_NAMES, parse_media_type
from fhir_server.formats.xml import to_json
from fhir_server.interactions.binary import content_as_binary
from fhir_server.model.resource import LARGE_BYTES, Resource, parse_resource
from fhir_server.model.validation import check_limits, check_size, validate
from fhir_server.server import Call
from foramen.kernel.errors import InteropError, UnsupportedMediaTypeError
from foramen.kernel.http_edge import header, read_body


def is_xml(request: Request) -> bool:
    """Whether the body is FHIR XML, which it says; without a Content-Type it is taken for FHIR JSON.

    Raises
    ------
    UnsupportedMediaTypeError
        415: neither, another version of FHIR, or not UTF-8.
    """
    sent = header(request, b"content-type")
    if sent is None or sent == FHIR_JSON:
        return False
    media_type = parse_media_type(sent)
    if not media_type.is_our_version:
        raise UnsupportedMediaTypeError("The body must be of FHIR version 4.0")
    if not media_type.is_utf8:
        raise UnsupportedMediaTypeError("The body must be encoded in UTF-8")
    if media_type.name in JSON_NAMES:
        return False
    if media_type.name in XML_NAMES:
        return True
    raise UnsupportedMediaTypeError(f"The body must be {FHIR_JSON} or {FHIR_XML}")


async def raw_body(call: Call) -> bytes:
    """Return the request body as it was before compression.

    Raises
    ------
    InteropError
        413, 415 or 400: too large, or compressed in a way that cannot be undone.
    """
    body = await read_body(call.request, call.server.max_body_bytes)
    encoding = header(call.request, b"content-encoding")
    if encoding is None:
        return body
    if len(body) > LARGE_BYTES:
        return await run_in_threadpool(decompress, body, encoding, call.server.max_body_bytes)
    return decompress(body, encoding, call.server.max_body_bytes)


async def json_body(call: Call) -> bytes:
    """Return the request body as JSON text, whatever format and compression it came in.

    Raises
    ------
    InteropError
        415, 413 or 400.
    """
    xml = is_xml(call.request)
    body = await raw_body(call)
    if not xml:
        return body
    limits = call.server.limits
    if len(body) > LARGE_BYTES:
        return await run_in_threadpool(to_json, body, limits.max_depth, limits.max_xml_elements)
    return to_json(body, limits.max_depth, limits.max_xml_elements)


async def resource_of(call: Call) -> Resource:
    """Return the valid resource in the body.

    Raises
    ------
    InteropError
        415, 413, 400 or 422.
    """
    body = await (raw_body(call) if call.resource_type == "Binary" else json_body(call))
    if len(body) > LARGE_BYTES:
        return await run_in_threadpool(_valid, call, body)
    return _valid(call, body)


def _valid(call: Call, body: bytes) -> Resource:
    limits = call.server.limits
    if call.resource_type == "Binary":
        resource = _binary(call, body)
    else:
        check_size(len(body), call.resource_type, limits)
        resource = parse_resource(body, limits.max_depth)
    if resource.resource_type == call.resource_type:
        check_limits(resource, limits)
        validate(resource, ignore_id=call.request.method == "POST")
    return resource


def _binary(call: Call, body: bytes) -> Resource:
    """Return a Binary: sent as the resource it is, or any other content, which becomes one."""
    sent = call.request.headers.get("content-type") or FHIR_JSON
    name = parse_media_type(sent).name
    if name in JSON_NAMES or name in XML_NAMES:
        depth = call.server.limits.max_depth
        try:
            text = to_json(body, depth, call.server.limits.max_xml_elements) if is_xml(call.request) else body
            resource = parse_resource(text, depth)
        except InteropError:
            # What says that it is FHIR and cannot be read is a mistake; other JSON or XML is content.
            if name in (FHIR_JSON, FHIR_XML):
                raise
        else:
            if resource.resource_type == "Binary":
                return resource
    return content_as_binary(call, body, sent)
