"""Write Bundles around stored bytes: the resources in them are not read, only joined.

https://hl7.org/fhir/R4/bundle.html
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import orjson

from fhir_server.model.resource import instant


def bundle(
    kind: str, entries: Iterable[bytes], *, links: Iterable[tuple[str, str]] = (), total: int | None = None
) -> bytes:
    """Return a Bundle of ready entries."""
    head = b'{"resourceType":"Bundle","type":"' + kind.encode() + b'"'
    if total is not None:
        head += b',"total":%d' % total
    linked = [{"relation": relation, "url": url} for relation, url in links]
    if linked:
        head += b',"link":' + orjson.dumps(linked)
    joined = b",".join(entries)
    return head + (b',"entry":[' + joined + b"]}" if joined else b"}")


def search_entry(full_url: str, content: bytes, mode: str) -> bytes:
    """Return an entry of a searchset."""
    head = b'{"fullUrl":' + orjson.dumps(full_url) if full_url else b"{"
    comma = b"," if full_url else b""
    return head + comma + b'"resource":' + content + b',"search":{"mode":"' + mode.encode() + b'"}}'


def history_entry(
    full_url: str, content: bytes | None, method: str, url: str, status: str, version: int, updated: datetime
) -> bytes:
    """Return an entry of a history."""
    response = {"status": status, "etag": f'W/"{version}"', "lastModified": instant(updated)}
    resource = b',"resource":' + content if content is not None else b""
    return (
        b'{"fullUrl":'
        + orjson.dumps(full_url)
        + resource
        + b',"request":'
        + orjson.dumps({"method": method, "url": url})
        + b',"response":'
        + orjson.dumps(response)
        + b"}"
    )


def response_entry(
    *,
    status: str,
    location: str | None = None,
    version: int | None = None,
    updated: datetime | None = None,
    content: bytes | None = None,
    outcome: bytes | None = None,
) -> bytes:
    """Return an entry of a batch or transaction response."""
    response: dict[str, object] = {"status": status}
    if location is not None:
        response["location"] = location
    if version is not None:
        response["etag"] = f'W/"{version}"'
    if updated is not None:
        response["lastModified"] = instant(updated)
    if outcome is not None:
        response["outcome"] = orjson.Fragment(outcome)
    resource = b'"resource":' + content + b"," if content is not None else b""
    return b"{" + resource + b'"response":' + orjson.dumps(response) + b"}"
