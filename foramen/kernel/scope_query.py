"""The query of a granular SMART scope, e.g. ``category=http://…|laboratory``: read, checked and written one way. Pure.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#finer-grained-resource-constraints-using-search-parameters
The parameters of one query are joined by *and*. What a parameter means is the FHIR server's knowledge; here it is only
made sure that nothing but plain parameters of the resource itself can be named.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote

MAX_LENGTH = 1024
MAX_PARAMETERS = 8
_NAME = re.compile(r"(_?[A-Za-z][A-Za-z0-9-]*)(:[A-Za-z-]+)?")
_ESCAPED = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SAFE = ":/|,.-_~$@!*;()'"
"""Characters that a value keeps; what separates scopes and parameters, and what RFC 6749 §3.3 bars, is escaped."""
NOT_RESTRICTING = frozenset(
    (
        *("_sort", "_count", "_include", "_revinclude", "_summary", "_elements", "_total", "_contained"),
        *("_containedType", "_format", "_pretty", "_cursor", "_partition", "_partitions", "_explain", "_type"),
        *("_has", "_list", "_query", "_filter", "_text", "_content"),
    )
)
"""Parameters that shape a result, or that look beyond the resource's own elements."""


def normalise(text: str) -> str | None:
    """Return the one way in which a query is written, or None when it is not one.

    Chains, `_has`, parameters of results and repeated or empty values are none.
    """
    if len(text) > MAX_LENGTH or _ESCAPED.search(text) is not None:
        return None
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=99)
    except ValueError:
        return None
    if not pairs or len(pairs) > MAX_PARAMETERS or not all(_is_plain(name, value) for name, value in pairs):
        return None
    return "&".join(sorted({f"{name}={quote(value, safe=_SAFE)}" for name, value in pairs}))


def _is_plain(name: str, value: str) -> bool:
    match = _NAME.fullmatch(name)
    return match is not None and match.group(1) not in NOT_RESTRICTING and bool(value.strip()) and value.isprintable()


def pairs_of(query: str) -> list[tuple[str, str]]:
    """Return the parameters of a normalised query."""
    return parse_qsl(query, strict_parsing=True) if query else []


def parts(query: str) -> frozenset[str]:
    """Return the parts of a normalised query, all of which have to be fulfilled; no part: nothing is asked."""
    return frozenset(query.split("&")) if query else frozenset()


def both(one: str, other: str) -> str:
    """Return the query that asks for what two queries ask for."""
    return "&".join(sorted(parts(one) | parts(other)))
