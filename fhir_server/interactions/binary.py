"""Binary: any content under a FHIR URL, as bytes or as a resource. https://hl7.org/fhir/R4/binary.html#rest"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from fhir_server.formats.media_types import FHIR_JSON, FHIR_XML, JSON_NAMES, XML_NAMES, parse_media_type
from fhir_server.interactions.responses import version_headers
from fhir_server.model.resource import Resource
from fhir_server.server import Call
from fhir_server.store.changes import Stored
from foramen.kernel.errors import InvalidRequestError, NotAcceptableError, UnsupportedMediaTypeError

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(?:\s*;\s*[\x21-\x7e ]{1,255})?")
_SECURITY_CONTEXT = "x-security-context"
_OWN_HEADERS = {
    # Whoever stored it may have stored a page with a script: it must not run on our origin.
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Content-Disposition": "attachment",
}


def content_as_binary(call: Call, body: bytes, content_type: str) -> Resource:
    """Return the Binary that holds what was sent as it is.

    Raises
    ------
    UnsupportedMediaTypeError
        415: the Content-Type is no media type.
    InvalidRequestError
        400: nothing was sent.
    """
    if not _MEDIA_TYPE.fullmatch(content_type.strip()):
        raise UnsupportedMediaTypeError("The Content-Type is not a media type")
    if not body:
        raise InvalidRequestError("The body is empty", issue_code="required")
    data: dict[str, Any] = {"resourceType": "Binary"}
    if call.logical_id:
        data["id"] = call.logical_id
    data["contentType"] = content_type.strip()
    context = call.request.headers.get(_SECURITY_CONTEXT)
    if context is not None:
        data["securityContext"] = {"reference": context}
    data["data"] = base64.b64encode(body).decode("ascii")
    return Resource("Binary", orjson.dumps(data), data)


def content_response(call: Call, stored: Stored) -> Response | None:
    """Answer a read of a Binary with its content, or None when the client wants the resource.

    Raises
    ------
    NotAcceptableError
        406: the client takes neither the content's media type nor FHIR's.
    """
    data = stored.data()
    content_type = str(data.get("contentType", "application/octet-stream"))
    if _wants_resource(call.request, content_type):
        return None
    try:
        content = base64.b64decode(data.get("data", ""))
    except binascii.Error:
        return None  # Stored before base64 was checked: the resource says at least what it has.
    headers = {**version_headers(stored.version, stored.updated), **_OWN_HEADERS}
    context = data.get("securityContext", {}).get("reference")
    if isinstance(context, str) and context.isascii() and context.isprintable():
        headers["X-Security-Context"] = context
    headers["Content-Type"] = content_type
    return Response(content, headers=headers)


def _wants_resource(request: Request, content_type: str) -> bool:
    if b"_format" in request.scope["query_string"]:
        return True
    accept = ",".join(request.headers.getlist("accept"))
    ranges = [parse_media_type(part) for part in accept.split(",") if part.strip()]
    names = {item.name for item in ranges if item.quality > 0}
    if FHIR_JSON in names or FHIR_XML in names:
        return True
    own = parse_media_type(content_type).name
    if not ranges or names & {own, f"{own.partition('/')[0]}/*", "*/*"}:
        return False
    if names & (JSON_NAMES | XML_NAMES):
        return True
    raise NotAcceptableError("The content has another media type; its resource can be had as application/fhir+json")
