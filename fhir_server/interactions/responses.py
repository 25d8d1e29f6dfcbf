"""HTTP answers: headers of a version, what `Prefer` asks for, content negotiation.

https://hl7.org/fhir/R4/http.html#versioning, #ops, #mime-type
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache

import orjson
from starlette.requests import Request
from starlette.responses import Response

from fhir_server.interactions.operations import Result
from fhir_server.server import Call
from foramen.kernel.errors import Issue
from foramen.kernel.http_edge import ReadyResponse, header
from foramen.kernel.outcome import FHIR_JSON, operation_outcome

_RETURNS = {"minimal", "representation", "OperationOutcome"}
_SAID = {200: "The resource was stored", 201: "The resource was created", 204: "The resource was deleted"}
MEDIA_TYPE = f"{FHIR_JSON}; charset=utf-8"
_MEDIA_TYPE = MEDIA_TYPE.encode()


@lru_cache(maxsize=4096)
def _http_date(second: int) -> str:
    return format_datetime(datetime.fromtimestamp(second, UTC), usegmt=True)


def http_date(at: datetime) -> str:
    """HTTP date (RFC 9110 §5.6.7)."""
    return _http_date(int(at.timestamp()))


def etag(version: int) -> str:
    """Weak entity tag of a version."""
    return f'W/"{version}"'


def version_headers(version: int, updated: datetime) -> dict[str, str]:
    """ETag and Last-Modified."""
    return {"ETag": etag(version), "Last-Modified": http_date(updated)}


def content_response(content: bytes, version: int, updated: datetime) -> Response:
    """Answer with one version."""
    return ReadyResponse(
        content,
        [
            (b"content-type", _MEDIA_TYPE),
            (b"etag", b'W/"%d"' % version),
            (b"last-modified", http_date(updated).encode()),
        ],
    )


def no_content(version: int | None) -> Response:
    """Answer a deletion; a 204 has no Content-Length (RFC 9110 §8.6)."""
    response = ReadyResponse(b"", [], 204)
    response.raw_headers = [] if version is None else [(b"etag", b'W/"%d"' % version)]
    return response


def bundle_response(content: bytes) -> Response:
    """Answer with a Bundle."""
    return ReadyResponse(content, [(b"content-type", _MEDIA_TYPE)])


def not_modified(request: Request, version: int, updated: datetime) -> bool:
    """Whether the client's copy is still good, by the conditions of its request."""
    tags, since = header(request, b"if-none-match"), header(request, b"if-modified-since")
    return (tags is not None or since is not None) and is_unchanged(tags, since, version, updated)


def is_unchanged(tags: str | None, since: str | None, version: int, updated: datetime) -> bool:
    """Whether a version is the one somebody has (If-None-Match goes before If-Modified-Since, RFC 9110 §13.2.2).

    Parameters
    ----------
    tags : If-None-Match
    since : If-Modified-Since, an HTTP date; in a Bundle an instant
    """
    if tags is not None:
        return any(tag.strip() in (etag(version), f'"{version}"', "*") for tag in tags.split(","))
    moment = _moment(since)
    return moment is not None and updated.replace(microsecond=0) <= moment


def _moment(text: str | None) -> datetime | None:
    """Read a date; what is none counts as not sent (RFC 9110 §13.1.3)."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text) if "T" in text[9:12] else parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def write_response(call: Call, result: Result) -> Response:
    """Answer a create or update as `Prefer` asks (the representation when it asks nothing)."""
    headers: list[tuple[bytes, bytes]] = []
    if result.version is not None and result.updated is not None:
        headers = [(b"etag", b'W/"%d"' % result.version), (b"last-modified", http_date(result.updated).encode())]
    if result.status in (200, 201) and result.version is not None:
        location = f"{call.server.own_url}/{result.reference}/_history/{result.version}"
        headers.append((b"location", location.encode()))
    prefer = header(call.request, b"prefer")
    content = result.content
    if prefer is not None:
        applied = returned(prefer)
        if applied and not (applied == "representation" and content is None):
            headers.append((b"preference-applied", b"return=" + applied.encode()))
        if applied == "minimal":
            content = None
        elif applied == "OperationOutcome":
            content = _done(result)
    if content is None:
        return ReadyResponse(b"", headers, result.status)
    return ReadyResponse(content, [(b"content-type", _MEDIA_TYPE), *headers], result.status)


def returned(prefer: str) -> str:
    """Return what `Prefer: return=` asks for: minimal, representation, OperationOutcome, or nothing (RFC 7240 §4.2)."""
    for part in prefer.replace(";", ",").split(","):
        name, _, value = part.partition("=")
        if name.strip().lower() == "return" and value.strip().strip('"') in _RETURNS:
            return value.strip().strip('"')
    return ""


def _done(result: Result) -> bytes:
    said = _SAID.get(result.status, "Done")
    return orjson.dumps(operation_outcome((Issue("informational", said, severity="information"),)))
