"""Which format a client wants for the answer, and writing the answer in it.

`_format` goes before `Accept`. https://hl7.org/fhir/R4/http.html#mime-type, #parameters (`_format`, `_pretty`);
RFC 9110 §12.5.1
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from fhir_server.formats.media_types import FHIR_JSON, FHIR_XML, JSON_NAMES, XML_NAMES, MediaType, parse_media_type
from fhir_server.formats.xml import to_xml
from foramen.kernel.errors import InteropError, NotAcceptableError
from foramen.kernel.outcome import outcome_response

_SPOKEN = f"This server speaks {FHIR_JSON} and {FHIR_XML} of FHIR version 4.0"
_NEVER_SENT = frozenset({"content-length", "content-type"})


@dataclass(frozen=True, slots=True)
class Format:
    """What an answer looks like."""

    name: str = "json"
    pretty: bool = False


PLAIN = Format()
"""JSON as it is stored: nothing has to be rewritten."""
_XML = Format("xml")


def negotiate(request: Request) -> Format:
    """Return the format of the answer.

    Raises
    ------
    NotAcceptableError
        406.
    """
    scope = request.scope
    query: bytes = scope["query_string"]
    if query and (b"_format" in query or b"_pretty" in query):
        return _of_query(request, query)
    if not any(name == b"accept" for name, _ in scope["headers"]):
        return PLAIN
    accept = request.headers.getlist("accept")
    return _of_accept(accept[0] if len(accept) == 1 else ",".join(accept), _has_own_types(scope["path"]))


def _has_own_types(path: str) -> bool:
    """Whether what lies there may have a media type of its own: content of Binary, files of an operation."""
    return "/Binary" in path or "$" in path


def _of_query(request: Request, query: bytes) -> Format:
    pairs = parse_qsl(query.decode("latin-1"))
    asked = [value for name, value in pairs if name == "_format" and value.strip()]
    pretty = any(name == "_pretty" and value == "true" for name, value in pairs)
    if asked:
        # A plus sign in an unescaped `application/fhir+json` has become a space.
        media_type = parse_media_type(asked[-1].strip().replace(" ", "+", 1))
        name = _named(media_type)
        if name is None:
            raise NotAcceptableError(_SPOKEN, expression=("http._format",))
        return Format(name, pretty)
    accept = ",".join(request.headers.getlist("accept"))
    found = _of_accept(accept, _has_own_types(request.scope["path"])) if accept else PLAIN
    return Format(found.name, pretty) if pretty else found


def _named(media_type: MediaType) -> str | None:
    if not media_type.is_our_version or not media_type.is_utf8:
        return None
    if media_type.name in JSON_NAMES:
        return "json"
    return "xml" if media_type.name in XML_NAMES else None


@lru_cache(maxsize=512)
def _of_accept(accept: str, has_own_types: bool) -> Format:
    ranges = [parse_media_type(part) for part in accept.split(",") if part.strip()]
    usable = [item for item in ranges if item.is_our_version]
    json, xml = _wish(usable, JSON_NAMES), _wish(usable, XML_NAMES)
    if json[0] <= 0 and xml[0] <= 0:
        if has_own_types or not ranges:
            return PLAIN  # The handler knows what it has.
        raise NotAcceptableError(_SPOKEN)
    return _XML if xml > json else PLAIN


def _wish(ranges: list[MediaType], names: frozenset[str]) -> tuple[float, int]:
    """Return (quality, how exactly it was named) of a family; the most exact range decides."""
    for exactness, matching in ((2, names), (1, {"application/*", "text/*"}), (0, {"*/*", "*"})):
        found = [item.quality for item in ranges if item.name in matching]
        if found:
            return max(found), exactness
    return 0.0, 0


def render(response: Response, wanted: Format) -> Response:
    """Write an answer in the wanted format; what is no FHIR JSON (files, 304) stays as it is."""
    if not response.headers.get("content-type", "").startswith(FHIR_JSON):
        return response
    if isinstance(response, StreamingResponse):
        return _Collected(response, wanted)
    content = bytes(response.body)
    return _rendered(response, content, wanted) if content else response


def _rendered(response: Response, content: bytes, wanted: Format) -> Response:
    try:
        if wanted.name == "xml":
            body, media_type = to_xml(content, pretty=wanted.pretty), FHIR_XML
        else:
            body, media_type = msgspec.json.format(content, indent=2), FHIR_JSON
    except InteropError as exc:
        return outcome_response(exc)
    headers = {name: value for name, value in response.headers.items() if name not in _NEVER_SENT}
    return Response(body, response.status_code, headers, f"{media_type}; charset=utf-8", response.background)


class _Collected(Response):
    """A streamed answer in another format: it is read to its end first, as XML cannot be written from half of it."""

    def __init__(self, streamed: StreamingResponse, wanted: Format) -> None:
        headers = {name: value for name, value in streamed.headers.items() if name not in _NEVER_SENT}
        super().__init__(status_code=streamed.status_code, headers=headers)
        self._streamed = streamed
        self._wanted = wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        parts = [part async for part in self._streamed.body_iterator]
        content = b"".join(part.encode() if isinstance(part, str) else bytes(part) for part in parts)
        await _rendered(self._streamed, content, self._wanted)(scope, receive, send)
