"""Which format a client wants for the answer, and writing the answer in it.

https://hl7.org/fhir/R4/http.html#mime-type, #parameters (`_format`, `_pretty`)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from foramen.kernel.errors import NotAcceptableError

_JSON_TYPES = {"application/fhir+json", "application/json", "application/*", "*/*", "json", "text/json"}
_FORMAT_QUERY = re.compile(rb"(?:^|&)_format=([^&]*)")


@dataclass(frozen=True, slots=True)
class Format:
    """What an answer looks like."""

    name: str = "json"
    pretty: bool = False


PLAIN = Format()
"""JSON as it is stored: nothing has to be rewritten."""


def negotiate(request: Request) -> Format:
    """Return the format of the answer.

    Raises
    ------
    NotAcceptableError
        406.
    """
    asked = _FORMAT_QUERY.search(request.scope["query_string"])
    if asked is not None:
        wanted = asked.group(1).decode("latin-1").replace("%2F", "/").replace("%2f", "/").replace("%2B", "+")
        wanted = wanted.replace("%2b", "+").replace(" ", "+")
        if wanted.partition(";")[0].strip() in _JSON_TYPES:
            return PLAIN
        raise NotAcceptableError("This server speaks application/fhir+json")
    accept = request.headers.get("accept")
    if not accept or accept == "*/*" or "json" in accept:
        return PLAIN
    if not any(part.partition(";")[0].strip().lower() in _JSON_TYPES for part in accept.split(",")):
        raise NotAcceptableError("This server speaks application/fhir+json")
    return PLAIN


def render(response: Response, wanted: Format) -> Response:
    """Write an answer in the wanted format; what is no FHIR JSON (files, 304) stays as it is."""
    return response
