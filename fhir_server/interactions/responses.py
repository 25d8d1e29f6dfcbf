"""HTTP answers: headers of a version, what `Prefer` asks for, content negotiation.

https://hl7.org/fhir/R4/http.html#versioning, #ops, #mime-type
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from starlette.requests import Request
from starlette.responses import Response

from fhir_server.interactions.operations import Result
from fhir_server.server import Call
from foramen.kernel.errors import UnsupportedMediaTypeError
from foramen.kernel.outcome import FHIR_JSON

_JSON_TYPES = {"application/fhir+json", "application/json", "application/*", "*/*", "json", "text/json"}
MEDIA_TYPE = f"{FHIR_JSON}; charset=utf-8"


def http_date(at: datetime) -> str:
    """HTTP date (RFC 9110 §5.6.7)."""
    return format_datetime(at.astimezone(UTC), usegmt=True)


def etag(version: int) -> str:
    """Weak entity tag of a version."""
    return f'W/"{version}"'


def check_content_type(request: Request) -> None:
    """Refuse a body that is not JSON.

    Raises
    ------
    UnsupportedMediaTypeError
        415.
    """
    sent = request.headers.get("content-type")
    if sent is None:
        return
    media_type, _, parameters = sent.partition(";")
    if media_type.strip().lower() not in _JSON_TYPES:
        raise UnsupportedMediaTypeError("The body must be application/fhir+json")
    charset = re.search(r"charset=\"?([\w-]+)", parameters, re.IGNORECASE)
    if charset is not None and charset.group(1).lower() not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaTypeError("The body must be encoded in UTF-8")


def version_headers(version: int, updated: datetime) -> dict[str, str]:
    """ETag and Last-Modified."""
    return {"ETag": etag(version), "Last-Modified": http_date(updated)}


def content_response(content: bytes, version: int, updated: datetime) -> Response:
    """Answer with one version."""
    return Response(content, headers=version_headers(version, updated), media_type=MEDIA_TYPE)


def not_modified(request: Request, version: int, updated: datetime) -> bool:
    """Whether the client's copy is still good (If-None-Match goes before If-Modified-Since, RFC 9110 §13.2.2)."""
    tags = request.headers.get("if-none-match")
    if tags is not None:
        return any(tag.strip() in (etag(version), f'"{version}"', "*") for tag in tags.split(","))
    since = request.headers.get("if-modified-since")
    if since is None:
        return False
    try:
        moment = parsedate_to_datetime(since)
    except ValueError:
        return False
    return updated.replace(microsecond=0) <= (moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def write_response(call: Call, result: Result) -> Response:
    """Answer a create or update as `Prefer` asks (the representation when it asks nothing)."""
    headers = {}
    if result.version is not None and result.updated is not None:
        headers = version_headers(result.version, result.updated)
    if result.status in (200, 201) and result.version is not None:
        headers["Location"] = f"{call.server.own_url}/{result.reference}/_history/{result.version}"
    if result.content is None or call.minimal:
        return Response(status_code=result.status, headers=headers)
    return Response(result.content, status_code=result.status, headers=headers, media_type=MEDIA_TYPE)
