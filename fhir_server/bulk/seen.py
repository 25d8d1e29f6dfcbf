"""Which versions of an export its caller may see, where the index cannot tell: it knows the newest version only.

A version that was replaced while the export ran is written as it was; under a granular scope, and for a patient, each
line is therefore looked at (`Access.hides`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import orjson

from fhir_server.access.policy import Access
from fhir_server.store.changes import Stored

_ACTIONS = "rs"
"""An export finds (s) and shows (r)."""


def looks_inside(access: Access, types: Iterable[str]) -> bool:
    """Whether versions of one of these types have to be looked at."""
    return any(access.looks_inside(name, action) for name in types for action in _ACTIONS)


def seen(access: Access, resource_type: str) -> Callable[[bytes], bytes | None] | None:
    """Return the function that turns the line of a version that is hidden into None; None: no line needs a look."""
    if not looks_inside(access, (resource_type,)):
        return None

    def keep(line: bytes) -> bytes | None:
        data = orjson.loads(line)
        meta = data["meta"]
        updated = datetime.fromisoformat(meta["lastUpdated"])
        stored = Stored(0, resource_type, data["id"], int(meta["versionId"]), updated, "", line)
        return None if any(access.hides(stored, action) for action in _ACTIONS) else line

    return keep
