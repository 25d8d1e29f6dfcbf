"""`_elements` and `_summary`: parts of a resource, marked SUBSETTED. https://hl7.org/fhir/R4/search.html#summary"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

import orjson
from starlette.requests import Request

from fhir_server.model.elements import summary_elements
from fhir_server.model.resource import compose, raw_members
from foramen.kernel.errors import InvalidRequestError

_ALWAYS = {"resourceType", "id", "meta"}
_SUBSETTED = b'{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}'
_SUMMARIES = {"true", "false", "text", "data"}


def subset(content: bytes, resource_type: str, summary: str, elements: tuple[str, ...]) -> bytes:
    """Return the wanted elements of a resource, each with its bytes as stored.

    Parameters
    ----------
    summary : value of `_summary`: true, text, data, or anything else for all
    elements : names of `_elements`; mandatory elements are added, as R4 asks
    """
    if not elements and summary not in ("true", "text", "data"):
        return content
    members = raw_members(content)
    in_summary, mandatory = summary_elements()[resource_type]
    if elements:
        wanted = _ALWAYS | mandatory | set(elements)
    elif summary == "true":
        wanted = _ALWAYS | in_summary
    elif summary == "text":
        wanted = _ALWAYS | mandatory | {"text"}
    else:
        wanted = set(members) - {"text"}
    kept = {name: value for name, value in members.items() if name in wanted or name.removeprefix("_") in wanted}
    meta = raw_members(kept.get("meta", b"{}"))
    tags = meta.get("tag", b"[]").strip()
    meta["tag"] = tags[:-1] + (b"," if orjson.loads(tags) else b"") + _SUBSETTED + b"]"
    kept["meta"] = compose(meta)
    return compose(kept)


def wanted_parts(values: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """Return `_summary` and the names of `_elements` of a query.

    Raises
    ------
    InvalidRequestError
        `_summary` has another value.
    """
    summary = values.get("_summary", "false")
    if summary not in _SUMMARIES:
        raise InvalidRequestError("_summary must be true, false, text or data", issue_code="value")
    return summary, tuple(name.strip() for name in values.get("_elements", "").split(",") if name.strip())


def subset_of_query(request: Request, content: bytes) -> bytes:
    """Apply `_summary` and `_elements` of a read's query."""
    query = request.scope["query_string"]
    if b"_summary" not in query and b"_elements" not in query:
        return content
    summary, names = wanted_parts(dict(parse_qsl(query.decode("latin-1"))))
    return subset(content, orjson.loads(content)["resourceType"], summary, names)
