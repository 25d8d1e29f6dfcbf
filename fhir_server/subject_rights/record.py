"""What belongs to one person, as a walk over the tables finds it: to erase, to keep without names, to look at.

A resource in the compartment of this person alone is theirs. One that several people share (an appointment, a Person)
is theirs when it says so (`subject`, `patient`…); else it stays, without what names this person.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fhir_server.model.references import normalise_reference
from fhir_server.search.dates import MISSING
from fhir_server.search.hashing import resource_key
from fhir_server.search.index import extractor
from fhir_server.store import erasing, reading
from fhir_server.store.changes import Stored
from fhir_server.store.erasing import Found
from fhir_server.store.sealed_content import sealing
from fhir_server.subject_rights.marks import PEOPLE, marks_of, needles
from fhir_server.subject_rights.retention import LastVisit

_BINARY = re.compile(rb"Binary/([A-Za-z0-9.-]{1,64})")
_OWNER = ("subject", "patient", "for", "beneficiary", "individual")
_UID = "urn:oid:"
_MOST_NAMED = 200
_MOST_VERSIONS = 1000


@dataclass(slots=True)
class Record:
    """One person's record.

    Parameters
    ----------
    rows : row → `Type/id` of what is theirs; `people` of them name them (Patient, RelatedPerson), and go last
    versions : (row, version) of earlier versions that were theirs, of what is another's today
    shared : rows of what stays and refers to them; `shared_versions`: the same of earlier versions
    residue : `Type/id` of what stays and holds a text that names them, which a person has to look at
    kept_binaries : ids of Binaries they refer to, and others as well
    named : ids of all Binaries that they refer to
    studies : Study Instance UID → `ImagingStudy/id`
    """

    patient: str
    marks: set[str]
    visit: LastVisit
    rows: dict[int, str] = field(default_factory=dict)
    people: dict[int, str] = field(default_factory=dict)
    versions: list[tuple[int, int]] = field(default_factory=list)
    shared: dict[int, str] = field(default_factory=dict)
    shared_versions: list[tuple[int, int]] = field(default_factory=list)
    residue: set[str] = field(default_factory=set)
    binaries: list[str] = field(default_factory=list)
    kept_binaries: list[str] = field(default_factory=list)
    studies: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    count_versions: int = 0
    looked_at: int = 0
    named: set[str] = field(default_factory=set)

    @property
    def key(self) -> int:
        """Key of the Patient."""
        return resource_key("Patient", self.patient)

    def in_order(self) -> list[int]:
        """Return rows as they go: Binaries first, as only what refers to them tells whose they are."""
        return sorted(self.rows, key=lambda row: (not self.rows[row].startswith("Binary/"), row))

    @property
    def references(self) -> set[str]:
        """`Type/id` of all that is theirs."""
        return {*self.rows.values(), *self.people.values(), f"Patient/{self.patient}"}


async def marks(connection: Any, patient: str) -> set[str]:
    """Return the texts that name a person, by all versions of their Patient."""
    stored = await reading.read(connection, "Patient", patient)
    versions = [stored] if stored is not None else []
    versions += await reading.history(
        connection,
        resource_type="Patient",
        logical_id=patient,
        since=None,
        until=None,
        compartment=None,
        before=None,
        limit=_MOST_VERSIONS,
    )
    return {mark for version in versions if version.content for mark in marks_of(version.data())}


async def collect(
    connection: Any, patient: str, own_url: str, told: Callable[[int], Awaitable[None]] | None = None
) -> Record:
    """Walk over the record.

    Parameters
    ----------
    told : is awaited after each segment with the number of rows looked at
    """
    texts = await marks(connection, patient)
    record = Record(patient, texts, LastVisit(datetime.now(UTC)))
    own = sealing()  # What is sealed elsewhere is known by its tag.
    tags = [own.needle(text) for text in sorted(texts)] if own is not None else []
    wanted = [f"Patient/{patient}".encode(), *needles(texts), *tags]
    async for found, size in erasing.walk(connection, record.key, wanted):
        for item in found:
            _take(record, item, own_url)
        record.looked_at += size
        if told is not None:
            await told(record.looked_at)
    await _binaries(connection, record)
    return record


def _take(record: Record, found: Found, own_url: str) -> None:
    stored = found.stored
    if stored.row in record.rows or stored.row in record.people:
        record.count_versions += 1
        _read_more(record, stored)
    elif _is_theirs(record, stored, own_url):
        if not found.is_current:
            record.versions.append((stored.row, stored.version))
            record.count_versions += 1
            return
        kind = record.people if stored.resource_type in PEOPLE else record.rows
        kind[stored.row] = stored.reference
        record.counts[stored.resource_type] += 1
        record.count_versions += 1
        _read_more(record, stored)
        _visit(record, stored, own_url)
    elif record.key in stored.patients or f"Patient/{record.patient}".encode() in (stored.content or b""):
        _share(record, found)
    elif found.is_current and len(record.residue) < _MOST_NAMED:
        record.residue.add(stored.reference)


def _share(record: Record, found: Found) -> None:
    if found.stored.content is None:
        return
    if found.is_current:
        record.shared[found.stored.row] = found.stored.reference
    else:
        record.shared_versions.append((found.stored.row, found.stored.version))


def _is_theirs(record: Record, stored: Stored, own_url: str) -> bool:
    if record.key not in stored.patients or stored.resource_type == "Group":
        return False
    if set(stored.patients) == {record.key}:
        return True
    data = stored.data()
    return any(_refers(data.get(name), f"Patient/{record.patient}", own_url) for name in _OWNER)


def _refers(value: Any, reference: str, own_url: str) -> bool:
    found = value.get("reference") if isinstance(value, dict) else None
    return isinstance(found, str) and normalise_reference(found, own_url) == reference


def _read_more(record: Record, stored: Stored) -> None:
    """Take from a version what leads elsewhere: Binaries, studies, names of relatives."""
    content = stored.content or b""
    record.named |= {match.decode() for match in _BINARY.findall(content)}
    if stored.resource_type == "ImagingStudy" and content:
        for identifier in stored.data().get("identifier") or ():
            value = str(identifier.get("value", ""))
            if identifier.get("system") == "urn:dicom:uid" and value:
                record.studies[value.removeprefix(_UID)] = stored.reference


def _visit(record: Record, stored: Stored, own_url: str) -> None:
    if stored.content is None:
        return
    data = stored.data()
    values = extractor(stored.resource_type, own_url).extract(data, stored.logical_id)
    record.visit.add(data, values.high if values.high > MISSING else None, stored.updated)


async def _binaries(connection: Any, record: Record) -> None:
    """Find the Binaries that are theirs: by their context, or as nobody else refers to them."""
    keys = [resource_key(*name.split("/", 1)) for name in record.references]
    own = set(await erasing.binaries_in(connection, keys))
    named = sorted(record.named - own)
    if named:
        rows = [*record.rows, *record.people]
        others = await erasing.binaries_of_others(connection, named, rows)
        own |= set(named) - others
        record.kept_binaries = sorted(others)
    record.binaries = sorted(own)
    keys = [resource_key("Binary", logical_id) for logical_id in record.binaries]
    found = await erasing.rows_of(connection, keys)
    more = {row: reference for row, reference in found.items() if row not in record.rows}
    record.rows |= more
    record.counts["Binary"] += len(more)
    record.count_versions += await erasing.count_versions(connection, list(more))
