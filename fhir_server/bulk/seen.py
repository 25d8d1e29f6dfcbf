"""Which versions of an export its caller may see, where the index cannot tell: it knows the newest version only.

A version that was replaced while the export ran is written as it was; under a granular scope, for a patient, and where
a Consent or what a Binary names decides, each line is therefore looked at (`Access.hides_within`; the wall of an
institution is part of the statement that reads the versions, `store/bulk.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import orjson

from fhir_server.access.policy import Access
from fhir_server.search.hashing import hash64
from fhir_server.search.index import extractor
from fhir_server.store.changes import Stored

_ACTIONS = "rs"
"""An export finds (s) and shows (r)."""


def looks_inside(access: Access, types: Iterable[str]) -> bool:
    """Whether versions of one of these types have to be looked at."""
    return any(
        access.hidden_patients(name) or any(access.looks_inside(name, action) for action in _ACTIONS) for name in types
    )


def seen(access: Access, resource_type: str) -> Callable[[bytes], bytes | None] | None:
    """Return the function that turns the line of a version that is hidden into None; None: no line needs a look."""
    if not looks_inside(access, (resource_type,)):
        return None

    def keep(line: bytes) -> bytes | None:
        stored = version_of(line, resource_type, access.own_url)
        return None if any(access.hides_within(stored, action) for action in _ACTIONS) else line

    return keep


def version_of(line: bytes, resource_type: str, own_url: str) -> Stored:
    """Return the version that a line of a file holds, in the compartments that its content puts it into."""
    data = orjson.loads(line)
    meta = data["meta"]
    updated = datetime.fromisoformat(meta["lastUpdated"])
    patients = extractor(resource_type, own_url).extract(data, data["id"]).patients
    keys = tuple(sorted(map(hash64, patients)))
    return Stored(0, resource_type, data["id"], int(meta["versionId"]), updated, "", line, keys)
