"""The part of an import that needs no database: read a batch, check each line, pack what is new.

It may run in a process of its own (`bulk/preparation_process.py`): what it returns is plain data.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fhir_server.audit.record import AuditRecord, audit_record, told
from fhir_server.bulk.import_batch import Good, Line, Name, method_of, read_line
from fhir_server.bulk.source import Batch, LineLimits, Place, batches
from fhir_server.model.resource import Resource, splice
from fhir_server.rules import custom_parameters
from fhir_server.search.hashing import hash64, resource_key
from fhir_server.search.index import extractor
from fhir_server.search.parameters import registry
from fhir_server.settings import FhirSettings
from fhir_server.store.bulk_writing import MOMENT, PackedRows, pack_rows
from fhir_server.store.changes import Change
from fhir_server.store.rows import place
from fhir_server.validation.check import profiles_of
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import ForbiddenError

_JUDGED_APART = frozenset({"Provenance", "AuditEvent", custom_parameters.RESOURCE_TYPE})
"""A signature counts for other lines; a search parameter changes the registry."""

_START = re.compile(rb'\{"resourceType":"[A-Za-z]+",(?="(?!id"))')
_UNUSUAL = re.compile(rb'"meta"|[\\\n]')
_META = f'"meta":{{"versionId":"1","lastUpdated":"{MOMENT}"}},'.encode()
_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)
"""When it is written is known only then (`MOMENT`)."""


@dataclass(frozen=True, slots=True)
class Source:
    """An input to read from a place on; `expected` is the type of its resources, empty when any."""

    path: Path
    start: Place
    expected: str


@dataclass(slots=True)
class Prepared:
    """One batch.

    Parameters
    ----------
    end : behind the batch
    refused : lines that may not be written
    plain : what is packed in `rows`, in case one of them is there already
    apart : what must be looked at with the database at hand
    keys : of those in `plain` whose id was given, so that they may be there
    rows : index rows under the registry of `version`
    record : the audit record, but for its time
    numbers_left : row numbers that were not needed
    """

    end: Place
    refused: list[Line] = field(default_factory=list)
    plain: list[Good] = field(default_factory=list)
    apart: list[Good] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    rows: PackedRows | None = None
    version: int = -1
    record: AuditRecord | None = None
    numbers_left: list[int] = field(default_factory=list)


class Preparer:
    """Prepares the batches of one input, one after the other.

    Parameters
    ----------
    context : who imports
    full : validates with bindings and invariants, else structure and data types only
    """

    def __init__(
        self,
        source: Source,
        lines: LineLimits,
        *,
        context: AccessContext,
        trace_id: str,
        own_url: str,
        limits: FhirSettings,
        full: bool,
    ) -> None:
        self._source = source
        self._context = context
        self._trace_id = trace_id
        self._own_url = own_url
        self._limits = limits
        self._full = full
        self._creates: dict[str, bool] = {}
        self._batches: Generator[Batch] = batches(source.path, source.start, lines)

    def close(self) -> None:
        """Close the input."""
        self._batches.close()

    def next(self, numbers: Sequence[int]) -> Prepared | None:
        """Return the next batch, None at the end.

        Parameters
        ----------
        numbers : row numbers to use, at least as many as a batch has lines

        Raises
        ------
        InteropError
            The input cannot be read.
        """
        batch = next(self._batches, None)
        if batch is None:
            return None
        prepared = Prepared(batch.end, version=registry().version)
        changes: list[Change] = []
        seen: set[Name] = set()
        for number, text in batch.lines:
            line = read_line(number, text, self._limits, full=self._full, expected=self._source.expected)
            if text is None or line.resource is None:
                prepared.refused.append(line)
                continue
            good = Good(number, text, line.name)
            if line.name in seen or self._is_apart(line):
                prepared.apart.append(good)
            else:
                prepared.plain.append(good)
                changes.append(self._change(line, numbers[len(changes)]))
                if line.resource.logical_id is not None:
                    prepared.keys.append(changes[-1].key)
            seen.add(line.name)
        self._pack(prepared, changes)
        prepared.numbers_left = list(numbers[len(changes) :])
        return prepared

    def _is_apart(self, line: Line) -> bool:
        """Whether it takes more than to be new: profiles to load, a rule between lines, or other rights."""
        resource = line.resource
        if resource is None or line.name[0] in _JUDGED_APART or profiles_of(resource.data):
            return True
        meta = resource.data.get("meta")
        if isinstance(meta, dict) and meta.get("tag"):
            return True
        return not self._may_create(line.name[0])

    def _may_create(self, resource_type: str) -> bool:
        known = self._creates.get(resource_type)
        if known is None:
            try:
                self._context.require_whole_type(resource_type, "c")
                known = True
            except ForbiddenError:
                known = False
            self._creates[resource_type] = known
        return known

    def _change(self, line: Line, number: int) -> Change:
        resource = line.resource
        assert resource is not None  # noqa: S101 - those without one are refused
        resource_type, logical_id = line.name
        values = extractor(resource_type, self._own_url).extract(resource.data, logical_id)
        key = resource_key(resource_type, logical_id)
        patients = sorted(map(hash64, values.patients))
        return Change(
            resource_type,
            logical_id,
            key,
            1,
            _UNKNOWN,
            method_of(line),
            _content(resource, logical_id),
            values,
            patients,
            None,
            place(number, patients[0] if patients else key),
        )

    def _pack(self, prepared: Prepared, changes: list[Change]) -> None:
        if not changes:
            return
        prepared.rows = pack_rows(changes)
        prepared.counts.update(change.resource_type for change in changes)
        patient, written = told(changes, self._own_url, each=True)
        prepared.record = audit_record(
            interaction="batch",
            status=200,
            trace_id=self._trace_id,
            context=self._context,
            patient=patient,
            written=written,
        )


def _content(resource: Resource, logical_id: str) -> bytes:
    """Return the text as stored. The id often stands elsewhere than `splice` looks for it first, and stays there."""
    body = resource.body
    start = _START.match(body)
    if start is not None and resource.logical_id == logical_id and _UNUSUAL.search(body) is None:
        return start.group() + _META + body[start.end() :]
    return splice(body, logical_id, 1, MOMENT)
