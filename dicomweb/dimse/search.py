"""Ask the study index as QIDO-RS does, by the same door: one set of matching rules, one place for access."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlencode

import orjson
from starlette.requests import Request

from dicomweb.qido import Qido
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InteropError

PAGE = 500
_PATHS = {"PATIENT": "/studies", "STUDY": "/studies", "SERIES": "/series", "IMAGE": "/instances"}


async def search(
    qido: Qido,
    context: AccessContext,
    level: str,
    parameters: Sequence[tuple[str, str]],
    *,
    limit: int = PAGE,
    offset: int = 0,
) -> list[dict[str, Any]]:
    """Return one page of results in the DICOM JSON model.

    Raises
    ------
    InteropError
        Refused, or the index could not be asked.
    """
    query = [*parameters, ("limit", str(limit)), ("offset", str(offset))]
    response = await qido.search(_request(_PATHS[level], query), context)
    if response.status_code == 204:
        return []
    if response.status_code != 200:
        raise InteropError("The index cannot be asked")
    found: list[dict[str, Any]] = orjson.loads(bytes(response.body))
    return found


async def search_all(
    qido: Qido, context: AccessContext, level: str, parameters: Sequence[tuple[str, str]]
) -> AsyncIterator[dict[str, Any]]:
    """Yield all results, page by page."""
    offset = 0
    while True:
        page = await search(qido, context, level, parameters, offset=offset)
        for item in page:
            yield item
        if len(page) < PAGE:
            return
        offset += PAGE


def value_of(model: dict[str, Any], tag: str) -> str:
    """First value of an attribute as text; "" when it has none."""
    values = model.get(tag, {}).get("Value") or [""]
    first = values[0]
    return str(first.get("Alphabetic", "")) if isinstance(first, dict) else str(first)


def _request(path: str, query: list[tuple[str, str]]) -> Request:
    return Request(
        {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "root_path": "",
            "path": path,
            "raw_path": path.encode(),
            "query_string": urlencode(query).encode(),
            "headers": [(b"accept", b"application/dicom+json")],
            "path_params": {},
        }
    )
