"""Which resources make up a record, what supports them, and where a page of a record ended. Used by `$everything`.

https://hl7.org/fhir/R4/compartmentdefinition.html
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from fhir_server.access.compartments import compartment, patient_compartment
from fhir_server.access.policy import Access
from fhir_server.model.references import parse_reference
from fhir_server.search.conditions import AnyPosting, Condition, Keys, Selection
from fhir_server.search.hashing import resource_key
from fhir_server.search.parameters import patient_base, r4_parameters, resource_types
from fhir_server.server import Call
from fhir_server.store import searching
from fhir_server.store.changes import Stored
from foramen.kernel.errors import InvalidRequestError

_REFERENCE = re.compile(rb'"(?:reference|url)"\s*:\s*"([^"\\]{3,400})"')
_ROUNDS = 3
_REMEMBERED = 256
_UNASKED = {"AuditEvent"}
"""Types that come only when `_type` names them: each call adds another AuditEvent to the record."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ended: the type and row of its last match, and which supporting resources went out already."""

    resource_type: str = ""
    row: int = -(2**63)
    sent: tuple[int, ...] = ()
    finished: bool = False

    def at(self, resource_type: str, row: int) -> Position:
        """Return the position behind this match."""
        return replace(self, resource_type=resource_type, row=row)

    def end(self) -> Position:
        """Return the position behind everything."""
        return replace(self, finished=True)

    def write(self) -> str:
        """Write the cursor of a next link."""
        packed = struct.pack(f">q{len(self.sent)}q", self.row, *self.sent)
        return f"{self.resource_type}.{base64.urlsafe_b64encode(packed).decode().rstrip('=')}"

    @staticmethod
    def read(text: str) -> Position:
        """Read the cursor of a next link.

        Raises
        ------
        InvalidRequestError
            Not one that this server made.
        """
        name, _, packed = text.partition(".")
        try:
            data = base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True)
            row, *sent = struct.unpack(f">{len(data) // 8}q", data)
        except (binascii.Error, ValueError, struct.error) as exc:
            raise InvalidRequestError("The page link is damaged", issue_code="value") from exc
        if name not in resource_types() or len(sent) > _REMEMBERED:
            raise InvalidRequestError("The page link is damaged", issue_code="value")
        return Position(name, row, tuple(sent))


def types_of_record(focus: str, logical_id: str, access: Access, asked: frozenset[str]) -> dict[str, tuple[int, ...]]:
    """Return, for each type that the caller may search, the postings that put a resource into the record.

    Parameters
    ----------
    focus : Patient or Encounter
    asked : types of `_type`; one that lies outside the record is found by what refers to it, so all are gone through
    """
    key = resource_key(focus, logical_id)
    bases = _patient_bases() if focus == "Patient" else _encounter_bases()
    narrowed = bool(asked) and asked <= bases.keys()
    found = {}
    for name, base in bases.items():
        if name == focus:
            wanted = not narrowed or name in asked
        else:
            wanted = name in asked if narrowed else name not in _UNASKED or name in asked
            wanted = wanted and access.may(name, "s")
        if wanted:
            found[name] = tuple(item ^ key for item in base)
    return found


@lru_cache(maxsize=1)
def _patient_bases() -> dict[str, tuple[int, ...]]:
    members = [name for name, codes in patient_compartment().items() if codes and name in resource_types()]
    return {name: (patient_base(name),) for name in sorted({*members, "Patient"})}


@lru_cache(maxsize=1)
def _encounter_bases() -> dict[str, tuple[int, ...]]:
    bases: dict[str, tuple[int, ...]] = {"Encounter": ()}  # The Encounter itself is found by its key.
    for name, codes in compartment("Encounter").items():
        table = r4_parameters(name).parameters
        found = {base for code in codes if code in table for base in table[code].bases()}
        if found and name != "Encounter":
            bases[name] = tuple(sorted(found))
    return bases


async def supporting(
    call: Call, connection: Any, matches: list[Stored], position: Position, record: frozenset[int]
) -> tuple[list[Stored], Position]:
    """Return what the matches refer to (and the Provenance of the matches), each once.

    What lies in another patient's record never comes along; what lies in the patient's own record is a match there.

    Parameters
    ----------
    record : keys of the patients whose record this is

    Raises
    ------
    InvalidRequestError
        `too-costly`: more than the limit would come along; a smaller `_count` helps.
    """
    limit = call.server.limits.max_included
    known = {resource_key(stored.resource_type, stored.logical_id) for stored in matches}
    seen = known | set(position.sent)
    found: list[Stored] = []
    frontier = matches
    for _ in range(_ROUNDS):
        wanted = _references(frontier, call, seen)
        frontier = []
        for name in sorted(wanted):
            if call.access.may(name, "r"):
                frontier += await _select(call, connection, name, Keys(tuple(wanted[name])), limit, "r")
        frontier = [stored for stored in frontier if _belongs(stored, record, seen)]
        seen |= {resource_key(stored.resource_type, stored.logical_id) for stored in frontier}
        found += frontier
        if len(found) > limit:
            raise InvalidRequestError("Too many resources would be included; lower _count", issue_code="too-costly")
        if not frontier:
            break
    for stored in await _provenance(call, connection, matches, limit):
        if resource_key("Provenance", stored.logical_id) not in seen and record.issuperset(stored.patients):
            found.append(stored)
    keys = [resource_key(s.resource_type, s.logical_id) for s in found if s.resource_type != "Binary"]
    return found, replace(position, sent=(*position.sent, *keys)[-_REMEMBERED:])


def _belongs(stored: Stored, record: frozenset[int], seen: set[int]) -> bool:
    """Whether it lies in no other patient's record; a Binary also when what its securityContext names is here."""
    return record.issuperset(stored.patients) or (stored.resource_type == "Binary" and seen.issuperset(stored.patients))


def _references(sources: list[Stored], call: Call, seen: set[int]) -> dict[str, set[int]]:
    """Keys that the resources refer to, by type; for a patient's record without the types that are matches there."""
    texts = {text for stored in sources for text in _REFERENCE.findall(stored.content or b"")}
    members = _patient_bases() if call.resource_type == "Patient" else {}
    wanted: dict[str, set[int]] = {}
    for text in texts:
        parsed = parse_reference(text.decode("utf-8", "replace"), call.server.own_url)
        if parsed is None or parsed[0] not in resource_types() or parsed[0] in members:
            continue
        key = resource_key(*parsed)
        if key not in seen:
            wanted.setdefault(parsed[0], set()).add(key)
    return wanted


async def _provenance(call: Call, connection: Any, matches: list[Stored], limit: int) -> list[Stored]:
    if not matches or not call.access.may("Provenance", "s"):
        return []
    bases = r4_parameters("Provenance").parameters["target"].bases()
    hashes = tuple(base ^ resource_key(s.resource_type, s.logical_id) for base in bases for s in matches)
    return await _select(call, connection, "Provenance", AnyPosting(hashes), limit, "s")


async def _select(
    call: Call, connection: Any, resource_type: str, condition: Condition, limit: int, action: str
) -> list[Stored]:
    bound = call.access.condition(resource_type, action)
    conditions = (condition,) if bound is None else (condition, bound)
    return await searching.matches(connection, Selection(resource_type, conditions), limit + 1)
