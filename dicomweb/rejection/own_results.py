"""Which results of ours stand on what is rejected: SEG and SR of rejected images are hidden with them. Pure.

DICOM PS3.3 §C.17.2.1 (evidence), §C.7.6.16.2.1 (source images): whatever the module, an instance is referenced by its
Referenced SOP Instance UID (0008,1155).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

_REFERENCED = "00081155"


def referenced_by(metadata: bytes) -> set[str]:
    """SOP Instance UIDs that an instance references, from its metadata as the index keeps it."""
    return set(_walk(orjson.loads(zlib.decompress(metadata))))


def standing_on(rejected: set[str], results: Mapping[str, set[str]]) -> set[str]:
    """Return the results that reference what is rejected, and those that reference such results.

    Parameters
    ----------
    rejected : SOP Instance UIDs
    results : SOP Instance UID of each result of ours in the study, with what it references
    """
    found: set[str] = set()
    while True:
        more = {uid for uid, names in results.items() if uid not in found and names & (rejected | found)}
        if not more:
            return found - rejected
        found |= more


def _walk(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _walk(item)
    elif isinstance(value, dict):
        for tag, inner in value.items():
            if tag == _REFERENCED:
                yield from (str(uid) for uid in inner.get("Value", ()))
            elif isinstance(inner, dict | list):
                yield from _walk(inner)
