"""One change of the record, ready to be written: bytes, version, index values. Pure; the store only carries it out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from fhir_server.model.resource import instant, splice
from fhir_server.search.blind import sealed_apart
from fhir_server.search.hashing import hash64, resource_key
from fhir_server.search.index import extractor
from fhir_server.search.parameters import registry, without_blind_index
from fhir_server.search.values import IndexValues


class Stored(NamedTuple):
    """A version as it lies in the store; a page makes many of them, and a tuple is the cheapest thing to make."""

    row: int
    resource_type: str
    logical_id: str
    version: int
    updated: datetime
    method: str
    content: bytes | None
    patients: tuple[int, ...] = ()
    sealed: frozenset[str] | None = None
    """Values that lie sealed in the store; None: all that are to be (the version was made here)."""

    @property
    def is_deleted(self) -> bool:
        """Whether this version is a deletion."""
        return self.content is None

    @property
    def reference(self) -> str:
        """`Type/id`."""
        return f"{self.resource_type}/{self.logical_id}"

    def data(self) -> dict[str, Any]:
        """Return the content, read."""
        found: dict[str, Any] = orjson.loads(self.content or b"{}")
        return found


@dataclass(slots=True)
class Change:
    """One new version; `old` is the content of `previous`, read, where somebody has read it already."""

    resource_type: str
    logical_id: str
    key: int
    version: int
    updated: datetime
    method: str
    content: bytes | None
    values: IndexValues | None
    patient_keys: list[int]
    previous: Stored | None
    row: int = 0
    registry: int | None = None
    """Version of the registry that the values were found by; None: no matter which."""
    old: dict[str, Any] | None = None

    def stored(self) -> Stored:
        """Return this change as it will lie in the store."""
        return Stored(
            self.row,
            self.resource_type,
            self.logical_id,
            self.version,
            self.updated,
            self.method,
            self.content,
            tuple(self.patient_keys),
        )


def save(
    body: bytes,
    data: dict[str, Any],
    logical_id: str,
    *,
    updated: datetime,
    own_url: str,
    previous: Stored | None = None,
    method: str = "POST",
) -> Change:
    """Prepare a new version with this content.

    Parameters
    ----------
    body : the resource text as sent, references resolved
    data : the same, read
    updated : aware UTC; truncated to the millisecond that `meta.lastUpdated` shows
    """
    updated = updated.replace(microsecond=updated.microsecond // 1000 * 1000)
    resource_type = data["resourceType"]
    version = previous.version + 1 if previous else 1
    known = registry_version()  # Before the values are found: the registry may change meanwhile.
    content = splice(body, logical_id, version, instant(updated))
    values = extractor(resource_type, own_url).extract(data, logical_id)
    return Change(
        resource_type,
        logical_id,
        resource_key(resource_type, logical_id),
        version,
        updated,
        method,
        content,
        values,
        sorted(hash64(patient) for patient in values.patients),
        previous,
        previous.row if previous else 0,
        known,
    )


def deletion(previous: Stored, *, updated: datetime) -> Change:
    """Prepare a deletion; it stays in the compartments of what it deletes, for their history."""
    return Change(
        previous.resource_type,
        previous.logical_id,
        resource_key(previous.resource_type, previous.logical_id),
        previous.version + 1,
        updated.replace(microsecond=updated.microsecond // 1000 * 1000),
        "DELETE",
        None,
        None,
        list(previous.patients),
        previous,
        previous.row,
        registry_version(),
    )


def registry_version() -> int | None:
    """Version of the registry in force, None where none was loaded."""
    version = registry().version
    return version if version >= 0 else None


def old_values(previous: Stored, own_url: str, data: dict[str, Any] | None = None) -> IndexValues:
    """Index values of the version that is replaced, found again from its bytes, or from `data`, the same read."""
    data = previous.data() if data is None else data
    return stored_values(previous.resource_type, data, previous.logical_id, own_url, previous.sealed)


def stored_values(
    resource_type: str, data: dict[str, Any], logical_id: str, own_url: str, sealed: frozenset[str] | None
) -> IndexValues:
    """Index values that a version has in the store, where what is not sealed yet is there without a key.

    Parameters
    ----------
    sealed : see `Stored`
    """
    values = extractor(resource_type, own_url).extract(data, logical_id)
    if not values.blind or sealed is None:
        return values
    if not sealed:
        with without_blind_index():
            return extractor(resource_type, own_url).extract(data, logical_id)
    return _as_stored(values, sealed)


def _as_stored(values: IndexValues, sealed: frozenset[str]) -> IndexValues:
    away, more = sealed_apart(values.blind or (), sealed)
    values.postings -= away
    values.postings |= more
    return values
