"""First pages of searches through a chain: the chain and the page in one statement, shared like any simple search.

``Observation?patient.organization.identifier=…&code=…`` is worked on from the inside: the organizations become a list
of keys, the patients that refer to one of them the next, and patients with codes the postings the page is read from.
Values are slots, as in page_shapes.py, so such a search builds no SQL and goes to the database once, together with
others of its shape.

The statement gives no answer (one record without an id) where it would not be bounded or not be exact: more keys than
a list may hold, or a pair of patient and code that the parameter asked for does not account for. The search is then
arranged step by step (arranging.py). Both ways give the same matches. ADR 0014 has the reasons and figures.
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fhir_server.access.compartments import patient_compartment
from fhir_server.search.conditions import AnyPosting, Chained, Condition, Role, Selection, SortKey, SortKind
from fhir_server.search.parameters import patient_code_base, r4_parameters
from fhir_server.store import arranging
from fhir_server.store.arranging import needs_counts, paired
from fhir_server.store.ordering import page_statement
from fhir_server.store.page_shapes import (
    LIMIT,
    GatheredPages,
    GatheredStatement,
    NoShapeError,
    PageQuestion,
    slots_for,
    slotted,
)
from fhir_server.store.query import SelectionQuery, is_source, opened, usual_rank

_NAMES_ONE_THING = 3
"""Up to this rank a condition names one thing (query.py): better to begin with than any chain."""
_FEW = 100
"""Most keys where another condition could be the better source of rows: with more it has to be counted."""
_AVOIDED_S = 60.0
_MOST_AVOIDED = 10_000
_avoided: dict[PageQuestion, float] = {}


@dataclass(frozen=True, slots=True)
class _Link:
    """The shape of one chain: what its targets are, and by which paths they are referred to."""

    bases: tuple[int, ...]
    targets: tuple[_Target, ...]
    most: int


@dataclass(frozen=True, slots=True)
class _Target:
    """The shape of one type a chain leads to: driven by a further chain, or by its first condition."""

    selection: Selection
    link: _Link | None


@dataclass(frozen=True, slots=True)
class _Pairing:
    """The codes that are asked of the chain's patients; `base` of the pairs, `others` as in `_other_paths`."""

    codes: tuple[Any, ...]
    base: int
    others: int


def chain_question(selection: Selection, sort: tuple[SortKey, ...], limit: int) -> PageQuestion | None:
    """Return the question of a first page, or None when the chain is not of a simple shape.

    Parameters
    ----------
    limit : most matches
    """
    if any(key.kind is SortKind.CONTENT for key in sort):
        return None
    values: list[Any] = [limit]
    try:
        chained, rest = _split(selection.conditions)
        if chained is None:
            return None
        pairing = _pairing(selection.resource_type, chained, rest, values)
        most = _most(chained, rest)
        if pairing is not None:
            most = min(arranging.MAX_PATIENTS, arranging.MAX_PAIRS // len(pairing.codes))
        link = _link(chained, values, most)
        shape = Selection(selection.resource_type, _slotted(rest, values), arranged=True)
    except NoShapeError:
        return None
    question = PageQuestion(_statement(shape, link, pairing, sort), tuple(values))
    return None if _avoided.get(question, 0.0) > time.monotonic() else question


def is_answer(question: PageQuestion, records: Sequence[Any]) -> bool:
    """Whether records are the page; if not, the question is not asked again for a while.

    What is remembered decides the way to the answer alone, never the answer.
    """
    if not any(record[1] is None for record in records):
        return True
    if len(_avoided) >= _MOST_AVOIDED:
        _avoided.clear()
    _avoided[question] = time.monotonic() + _AVOIDED_S
    return False


# From conditions to a shape


def _split(conditions: tuple[Condition, ...]) -> tuple[Chained | None, list[Condition]]:
    """Take the one chain out of conditions that begin with nothing better."""
    rest = list(opened(conditions))
    chains = [item for item in rest if isinstance(item, Chained)]
    if not chains:
        return None, rest
    rest.remove(chains[0])
    if len(chains) > 1 or chains[0].canonical or any(usual_rank(item) <= _NAMES_ONE_THING for item in rest):
        raise NoShapeError
    return chains[0], sorted(rest, key=usual_rank)


def _link(chained: Chained, values: list[Any], most: int) -> _Link:
    targets = []
    for target in chained.targets:
        if target.arranged:
            raise NoShapeError
        inner, rest = _split(target.conditions)
        if inner is None:
            rest = sorted(paired(target.resource_type, rest), key=usual_rank)
            if not rest or not is_source(rest[0]) or needs_counts(rest):
                raise NoShapeError
            link = None
        else:
            link = _link(inner, values, _most(inner, rest))
        targets.append(_Target(Selection(target.resource_type, _slotted(rest, values), arranged=True), link))
    if not targets:
        raise NoShapeError
    return _Link(chained.bases, tuple(targets), most)


def _most(chained: Chained, rest: list[Condition]) -> int:
    if needs_counts([AnyPosting((0, 0)), *rest]):
        return _FEW
    return arranging.MAX_PATIENTS if chained.by_patient else arranging.MAX_KEYS


def _slotted(conditions: list[Condition], values: list[Any]) -> tuple[Condition, ...]:
    return tuple([slotted(condition, values) for condition in conditions])


def _pairing(resource_type: str, chained: Chained, rest: list[Condition], values: list[Any]) -> _Pairing | None:
    """Take out the codes that can be asked together with the chain's patients."""
    if not chained.by_patient or len(chained.bases) != 1:
        return None
    for item in rest:
        if isinstance(item, AnyPosting) and item.role is Role.CODE and not item.negated:
            rest.remove(item)
            base = patient_code_base(resource_type) ^ item.base
            return _Pairing(slots_for(item.hashes, values), base, _other_paths(resource_type, chained.code))
    return None


@lru_cache(maxsize=256)
def _other_paths(resource_type: str, code: str) -> int:
    """Return the bits of the parameters, other than this, whose references put a resource into a patient's record.

    A resource in which none of these has a value belongs to its patients by this parameter alone.
    """
    table = r4_parameters(resource_type).parameters
    paths = table[code].paths if code in table else ()
    members = [table[name] for name in patient_compartment().get(resource_type, ()) if name in table]
    return sum(1 << item.bit for item in members if not set(item.paths) <= set(paths))


# From a shape to a statement


@lru_cache(maxsize=256)
def _statement(shape: Selection, link: _Link, pairing: _Pairing | None, sort: tuple[SortKey, ...]) -> GatheredPages:
    writer = _Writer()
    keys = writer.keys(link)
    statement, columns = writer.statement, "r.id, r.content"
    if pairing is None:
        source = _postings(keys, link.bases)
    else:
        codes = statement.value(list(pairing.codes), "bigint[]")
        source = (
            f"(SELECT {_constant(pairing.base)} # k.key # c.hash AS h FROM unnest({keys}.keys) AS k(key)"
            f" CROSS JOIN unnest({codes}) AS c(hash)) u"
        )
        columns = f"CASE WHEN {_accounted(keys, link.bases[0], pairing.others)} THEN r.id END, r.content"
    text, _ = page_statement(shape, sort, None, LIMIT, columns=columns, statement=statement, source=source)
    unbounded = " OR ".join(f"{name}.keys IS NULL" for name in writer.names)
    return statement.gathered(
        f"{' '.join(writer.joins)} LEFT JOIN LATERAL ({text}) p ON true WHERE p.k0 IS NOT NULL OR {unbounded}"
    )


class _Writer:
    """Writes the lists of keys, each a lateral join of its own that is worked out once for each search."""

    def __init__(self) -> None:
        self.statement = GatheredStatement()
        self.joins: list[str] = []
        self.names: list[str] = []

    def keys(self, link: _Link) -> str:
        """Add the list of the keys of a chain's targets and return its name; it is NULL when it has too many."""
        limit = f"LIMIT {link.most + 1}"
        parts = " UNION ALL ".join(f"({self._rows(target)} {limit})" for target in link.targets)
        name = f"l{len(self.names)}"
        self.names.append(name)
        self.joins.append(
            f"CROSS JOIN LATERAL (SELECT CASE WHEN cardinality(i.rows) <= {link.most} THEN ARRAY(SELECT x.key"
            f" FROM unnest(i.rows) AS o(row) CROSS JOIN LATERAL (SELECT y.key FROM fhir.resource y WHERE y.row = o.row"
            f" OFFSET 0) x) END AS keys FROM (SELECT ARRAY(SELECT n.row FROM ({parts}) n {limit}) AS rows OFFSET 0) i"
            f" OFFSET 0) {name}"
        )
        return name

    def _rows(self, target: _Target) -> str:
        source = _postings(self.keys(target.link), target.link.bases) if target.link is not None else None
        query = SelectionQuery(target.selection, self.statement, branched=True, source=source)
        if query.branches is None:
            return query.rows()
        # Posting by posting: reading stops as soon as there are too many, whichever of them is long.
        return f"SELECT s.row FROM {query.branches} CROSS JOIN LATERAL ({query.rows()} OFFSET 0) s"


def _postings(keys: str, bases: tuple[int, ...]) -> str:
    paths = ", ".join(map(_constant, bases))
    return f"(SELECT b.p # k.key AS h FROM unnest({keys}.keys) AS k(key) CROSS JOIN unnest(ARRAY[{paths}]) AS b(p)) u"


def _constant(value: int) -> str:
    return f"'{value}'::bigint"


def _accounted(keys: str, base: int, others: int) -> str:
    """Ask whether a match refers to one of the patients by the parameter itself: the pairs go by compartment."""
    return (
        f"r.present & {_constant(others)} = 0 OR EXISTS (SELECT FROM unnest(r.patients) AS k(key)"
        f" JOIN fhir.posting w ON w.hash = {_constant(base)} # k.key AND w.low = r.low AND w.row = r.row"
        f" WHERE k.key = ANY({keys}.keys) OFFSET 0)"
    )
