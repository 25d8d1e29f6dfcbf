"""Imported code systems, read with asyncpg; a release never changes, so what was asked once may be kept.

https://hl7.org/fhir/R4/codesystem.html
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import orjson

from foramen.kernel.errors import UpstreamError
from terminology.intervals import IntervalSet
from terminology.model import Concept, Designation
from terminology.patterns import compile_pattern
from terminology.words import query_words

_REFRESH_S = 1.0
_KEPT_CODES = 20_000
_KEPT_REACHES = 2_000


class Lender(Protocol):
    """Lends database connections."""

    def lend(self) -> AbstractAsyncContextManager[Any]:
        """Lend one connection of asyncpg."""


class ImportedCodeSystem:
    """One release of an imported code system (`CodeSystem` of `terminology.code_systems`)."""

    def __init__(self, connections: Lender, record: Any) -> None:
        self._connections = connections
        self._id: int = record["id"]
        self.url: str = record["url"]
        self.version: str | None = record["version"] or None
        self.name: str = record["name"]
        self.content: str = record["content"]
        self.size: int = record["concepts"]
        self.key: Hashable = ("imported", self._id)
        self._inactive: IntervalSet | None = None
        self._numbers: OrderedDict[str, int] = OrderedDict()
        self._reaches: OrderedDict[int, IntervalSet] = OrderedDict()

    async def _fetch(self, text: str, *values: Any) -> list[Any]:
        async with self._connections.lend() as connection:
            found: list[Any] = await connection.fetch(text, self._id, *values)
        return found

    async def find(self, codes: Iterable[str]) -> dict[str, int]:
        """See `CodeSystem`."""
        asked = dict.fromkeys(codes)
        found = {code: number for code in asked if (number := self._numbers.get(code)) is not None}
        missing = [code for code in asked if code not in found and "\x00" not in code]
        if missing:
            text = "SELECT code, number FROM terminology.concept WHERE system = $1 AND code = ANY($2)"
            for record in await self._fetch(text, missing):
                found[record["code"]] = self._numbers[record["code"]] = record["number"]
            while len(self._numbers) > _KEPT_CODES:
                self._numbers.popitem(last=False)
        return found

    async def concepts(self, numbers: Sequence[int]) -> list[Concept]:
        """See `CodeSystem`.

        Raises
        ------
        UpstreamError
            The release was removed meanwhile.
        """
        asked = list(numbers)
        if not asked:
            return []
        rows = await self._fetch(
            "SELECT number, code, display, active, definition FROM terminology.concept"
            " WHERE system = $1 AND number = ANY($2)",
            asked,
        )
        names: dict[int, list[Designation]] = {}
        for number, language, use, value in await self._fetch(
            "SELECT number, language, use, value FROM terminology.designation WHERE system = $1 AND number = ANY($2)",
            asked,
        ):
            names.setdefault(number, []).append(Designation(language, value, use))
        properties: dict[int, list[tuple[str, Any]]] = {}
        for number, name, value in await self._fetch(
            "SELECT number, name, value FROM terminology.property WHERE system = $1 AND number = ANY($2)", asked
        ):
            properties.setdefault(number, []).append((name, value))
        found = {
            number: Concept(
                number,
                code,
                display,
                active,
                definition,
                tuple(names.get(number, ())),
                tuple(properties.get(number, ())),
            )
            for number, code, display, active, definition in rows
        }
        if len(found) < len(set(asked)):
            raise UpstreamError("The code system was replaced meanwhile; try again", headers={"Retry-After": "1"})
        return [found[number] for number in asked]

    async def _links(self, column: str, number: int) -> list[int]:
        text = f"SELECT {column} AS found FROM terminology.concept WHERE system = $1 AND number = $2"  # noqa: S608 - our names
        rows = await self._fetch(text, number)
        return list(rows[0]["found"]) if rows else []

    async def parents(self, number: int) -> list[int]:
        """See `CodeSystem`."""
        return await self._links("parents", number)

    async def children(self, number: int) -> list[int]:
        """See `CodeSystem`."""
        return await self._links("children", number)

    async def descendants(self, number: int) -> IntervalSet:
        """See `CodeSystem`."""
        found = self._reaches.get(number)
        if found is None:
            flat = await self._links("coalesce(reach, ARRAY[number, number + 1])", number)
            found = self._reaches[number] = IntervalSet(tuple(flat))
            if len(self._reaches) > _KEPT_REACHES:
                self._reaches.popitem(last=False)
        return found

    async def ancestors(self, number: int) -> IntervalSet:
        """See `CodeSystem`."""
        rows = await self._fetch(
            "WITH RECURSIVE up (number) AS (VALUES ($2::integer) UNION SELECT unnest(c.parents) FROM up"
            " JOIN terminology.concept c ON c.system = $1 AND c.number = up.number) SELECT number FROM up",
            number,
        )
        return IntervalSet.of_numbers(record["number"] for record in rows)

    async def inactive(self) -> IntervalSet:
        """See `CodeSystem`."""
        if self._inactive is None:
            self._inactive = await self._set("NOT active")
        return self._inactive

    async def _set(self, condition: str, *values: Any, table: str = "concept") -> IntervalSet:
        # Runs of consecutive numbers are folded in the database: 150,000 inactive concepts come as one row.
        text = (
            "SELECT min(number) AS low, max(number) + 1 AS high FROM (SELECT number, number - row_number()"  # noqa: S608
            f" OVER (ORDER BY number) AS run FROM (SELECT DISTINCT number FROM terminology.{table}"
            f" WHERE system = $1 AND {condition}) d) r GROUP BY run ORDER BY low"
        )
        rows = await self._fetch(text, *values)
        return IntervalSet(tuple(bound for record in rows for bound in (record["low"], record["high"])))

    async def with_property(self, name: str, values: tuple[str, ...]) -> IntervalSet:
        """See `CodeSystem`."""
        if name in ("parent", "child"):
            found: list[int] = []
            for number in (await self.find(values)).values():
                found += await (self.children(number) if name == "parent" else self.parents(number))
            return IntervalSet.of_numbers(found)
        wanted = [value for value in values if "\x00" not in value]
        if "\x00" in name or (values and not wanted):
            return IntervalSet()  # PostgreSQL's text cannot hold NUL, so nothing has it.
        if name in ("code", "display"):
            return await self._set(f"{name} = ANY($2)", wanted)
        if not values:
            return await self._set("name = $2", name, table="property")
        condition = "name = $2 AND left(value, 100) = ANY($3) AND value = ANY($4)"
        return await self._set(condition, name, [value[:100] for value in wanted], wanted, table="property")

    async def matching(self, name: str, pattern: str) -> IntervalSet:
        """See `CodeSystem`."""
        compiled = compile_pattern(pattern)
        if "\x00" in name:
            return IntervalSet()
        if name in ("code", "display"):
            text = f"SELECT number, {name} AS value FROM terminology.concept WHERE system = $1"  # noqa: S608 - our names
            rows = await self._fetch(text)
        else:
            text = "SELECT number, value FROM terminology.property WHERE system = $1 AND name = $2"
            rows = await self._fetch(text, name)
        return IntervalSet.of_numbers(r["number"] for r in rows if compiled.fullmatch(r["value"]))

    async def search(self, text: str) -> IntervalSet:
        """See `CodeSystem`."""
        beginnings, whole = query_words(text)
        parts = [f"'{_quoted(word)}':*" for word in beginnings] + [f"'{_quoted(word)}'" for word in whole]
        if not parts:
            return IntervalSet()
        return await self._set("words @@ $2::text::tsquery", " & ".join(parts))

    async def codes(self, numbers: IntervalSet) -> list[str]:
        """See `CodeSystem`."""
        rows = await self._fetch(
            "SELECT c.code FROM unnest($2::integer[], $3::integer[]) AS r (low, high) JOIN terminology.concept c"
            " ON c.system = $1 AND c.number >= r.low AND c.number < r.high",
            list(numbers.flat[::2]),
            list(numbers.flat[1::2]),
        )
        return [record["code"] for record in rows]


def _quoted(word: str) -> str:
    return word.replace("\\", "\\\\").replace("'", "''")


class ImportedSystems:
    """All imported releases; looks at most once a second whether another process imported or removed one."""

    def __init__(self, connections: Lender | None) -> None:
        self._connections = connections
        self._systems: dict[int, ImportedCodeSystem] = {}
        self._checked = float("-inf")

    async def all(self) -> list[ImportedCodeSystem]:
        """Return all releases, the newest import first."""
        if self._connections is None:
            return []
        if time.monotonic() - self._checked > _REFRESH_S:
            async with self._connections.lend() as connection:
                records = await connection.fetch(
                    "SELECT id, url, version, name, content, concepts FROM terminology.code_system ORDER BY id DESC"
                )
            self._systems = {
                record["id"]: self._systems.get(record["id"]) or ImportedCodeSystem(self._connections, record)
                for record in records
            }
            self._checked = time.monotonic()
        return list(self._systems.values())

    async def find(self, url: str, version: str | None) -> ImportedCodeSystem | None:
        """Return the release of a version, or the one imported last."""
        for item in await self.all():
            # SNOMED CT: http://snomed.info/sct/MODULE names an edition, whatever its date.
            known = item.version or ""
            if item.url == url and (version in (None, known) or known.startswith(f"{version}/version/")):
                return item
        return None

    async def value_set(self, url: str, version: str | None) -> dict[str, Any] | None:
        """Return an imported value set (a LOINC answer list, for example), from the release imported last."""
        if self._connections is None or "\x00" in url or not await self.all():
            return None
        async with self._connections.lend() as connection:
            record = await connection.fetchrow(
                "SELECT v.content FROM terminology.value_set v WHERE v.url = $1"
                " AND ($2::text IS NULL OR v.version = $2) ORDER BY v.system DESC LIMIT 1",
                url,
                version,
            )
        found: dict[str, Any] | None = None if record is None else orjson.loads(record["content"])
        return found
