"""Write a release of a code system: streamed by COPY, numbered, and committed as a whole in one transaction.

The release that is in use stays until the new one is complete; a run that breaks off leaves nothing behind.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
import psycopg
from psycopg.sql import SQL, Identifier

from terminology.hierarchy import HierarchyCycleError, number_hierarchy
from terminology.importers.release import BadReleaseError, Problems, Release
from terminology.words import index_words

_LOCK = 0x5445494D  # "TEIM": one import at a time
_TICK = 1000
Progress = Callable[[str, int], None]
"""Told the step and how many rows of it are done."""
_T = TypeVar("_T")

_STAGE = """
CREATE TEMPORARY TABLE staged_concept (position integer, code text, display text, active boolean, definition text,
    line integer, words text) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_parent (code text, parent text, line integer) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_designation (code text, language text, use text, value text, words text)
    ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_property (code text, name text, value text) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_number (code text, position integer, number integer, reach integer[], parents integer[],
    children integer[]) ON COMMIT DROP;
"""
_UNIQUE = """
SELECT position, code, active, line FROM (SELECT *, row_number() OVER (PARTITION BY code ORDER BY position) AS nth
    FROM staged_concept) c WHERE nth = {nth} ORDER BY position
"""
_CONCEPTS = """
INSERT INTO terminology.concept (system, number, code, display, active, definition, reach, parents, children, words)
SELECT %(id)s, n.number, c.code, coalesce(nullif(c.display, ''), d.display, c.code), c.active, c.definition, n.reach,
    n.parents, n.children, array_to_tsvector(string_to_array(concat_ws(' ', nullif(c.words, ''), d.words), ' '))
FROM staged_number n JOIN staged_concept c ON c.position = n.position LEFT JOIN (
    SELECT code, min(value) FILTER (WHERE use = 'display' AND language LIKE %(language)s) AS display,
        string_agg(words, ' ') FILTER (WHERE words <> '') AS words FROM staged_designation GROUP BY code
) d ON d.code = c.code ORDER BY n.number
"""
_DESIGNATIONS = """
INSERT INTO terminology.designation (system, number, language, use, value)
SELECT DISTINCT %(id)s, n.number, d.language, d.use, d.value
FROM staged_designation d JOIN staged_number n ON n.code = d.code
"""
_PROPERTIES = """
INSERT INTO terminology.property (system, number, name, value)
SELECT DISTINCT %(id)s, n.number, p.name, p.value FROM staged_property p JOIN staged_number n ON n.code = p.code
"""
_TABLES = ("concept", "designation", "property", "value_set")


@dataclass(frozen=True, slots=True)
class Imported:
    """What was imported."""

    url: str
    version: str
    concepts: int
    replaced: bool


def import_release(
    database_url: str, release: Release, problems: Problems, progress: Progress = lambda *_: None
) -> Imported:
    """Import a release; one with the same URL and version is replaced.

    Parameters
    ----------
    database_url : PostgreSQL URL
    release : see `terminology.importers`
    problems : receives the rows that are left out
    progress : told how far it is

    Raises
    ------
    BadReleaseError
        There is no concept in it, or its hierarchy has a cycle; nothing was changed.
    """
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute(_STAGE.encode())
        _stage(connection, release, progress)
        row = connection.execute("SELECT nextval('terminology.release_number')").fetchone()
        assert row is not None  # noqa: S101
        identity = int(row[0])
        count = _number(connection, problems, progress)
        _move(connection, identity, release, progress)
        replaced = _replace(connection, identity, release, count)
    with psycopg.connect(database_url, autocommit=True) as connection:
        for table in _TABLES:
            connection.execute(f"ANALYZE terminology.{table}".encode())
    return Imported(release.url, release.version, count, replaced)


def _ticking(rows: Iterable[_T], step: str, progress: Progress) -> Iterator[_T]:
    done = 0
    for done, row in enumerate(rows, start=1):
        yield row
        if done % _TICK == 0:
            progress(step, done)
    progress(step, done)


def _words(*texts: str) -> str:
    found: set[str] = set()
    for text in texts:
        found |= index_words(text)
    return " ".join(found)


def _clean(text: str) -> str:
    """PostgreSQL's text cannot hold NUL."""
    return text.replace("\x00", "")


def _array(numbers: list[int]) -> str:
    """Return PostgreSQL's text of an array, which is cheaper to make than an adapted list."""
    return "{" + ",".join(map(str, numbers)) + "}"


def _stage(connection: psycopg.Connection[Any], release: Release, progress: Progress) -> None:
    def concepts() -> Iterator[tuple[Any, ...]]:
        for position, row in enumerate(release.concepts()):
            words = _words(row.code, row.display)
            yield (position, row.code, _clean(row.display), row.active, _clean(row.definition), row.line, words)

    def designations() -> Iterator[tuple[Any, ...]]:
        for row in release.designations():
            yield (row.code, row.language, row.use, _clean(row.value), _words(row.value))

    properties = ((row.code, row.name, _clean(row.value)) for row in release.properties())
    steps: tuple[tuple[str, Iterable[tuple[Any, ...]]], ...] = (
        ("concept", concepts()),
        ("parent", release.parents()),
        ("designation", designations()),
        ("property", properties),
    )
    with connection.cursor() as cursor:
        for name, rows in steps:
            with cursor.copy(f"COPY staged_{name} FROM STDIN".encode()) as copy:
                for row in _ticking(rows, f"read {name}", progress):
                    copy.write_row(row)
    connection.execute(b"ANALYZE staged_concept; ANALYZE staged_parent; ANALYZE staged_designation")


def _number(connection: psycopg.Connection[Any], problems: Problems, progress: Progress) -> int:
    """Number the concepts along the hierarchy and stage that; returns how many there are."""
    for *_, line in connection.execute(_UNIQUE.format(nth=2).encode()):
        problems.add("concepts", line, "the code stands twice; the first row counts")
    codes: dict[str, int] = {}
    places: array[int] = array("l")
    inactive: list[bool] = []
    for position, code, active, _ in connection.execute(_UNIQUE.format(nth=1).encode()):
        codes[code] = len(codes)
        places.append(position)
        inactive.append(not active)
    if not codes:
        raise BadReleaseError("There is no concept in these files")
    parents: list[list[int]] = [[] for _ in codes]
    for code, parent, line in connection.execute(b"SELECT DISTINCT code, parent, line FROM staged_parent"):
        below, above = codes.get(code), codes.get(parent)
        if below is None or above is None:
            problems.add("hierarchy", line, "the parent is not in the release" if above is None else "unknown code")
        elif above == below:
            problems.add("hierarchy", line, "the code is its own parent")
        elif above not in parents[below]:
            parents[below].append(above)
    for found in parents:
        found.sort()
    try:
        numbering = number_hierarchy(parents, inactive)
    except HierarchyCycleError as exc:
        code = next(code for code, place in codes.items() if place == exc.position)
        raise BadReleaseError(f"The hierarchy has a cycle at the code {code}", issue_code="invariant") from exc
    number = numbering.number
    children: list[list[int]] = [[] for _ in codes]
    for place, above_places in enumerate(parents):
        for above in above_places:
            children[above].append(number[place])

    def rows() -> Iterator[tuple[Any, ...]]:
        for code, place in codes.items():
            reach = list(numbering.descendants[place])
            leaf = len(reach) == 2 and reach[1] - reach[0] == 1
            above_numbers = _array([number[other] for other in parents[place]])
            below_numbers = _array(sorted(children[place]))
            yield (code, places[place], number[place], None if leaf else _array(reach), above_numbers, below_numbers)

    with connection.cursor() as cursor, cursor.copy(b"COPY staged_number FROM STDIN") as copy:
        for row in _ticking(rows(), "hierarchy", progress):
            copy.write_row(row)
    connection.execute(b"ANALYZE staged_number")
    return len(codes)


def _move(connection: psycopg.Connection[Any], identity: int, release: Release, progress: Progress) -> None:
    values = {"id": identity, "language": f"{release.language}%"}
    for done, (name, statement) in enumerate(
        (("concepts", _CONCEPTS), ("designations", _DESIGNATIONS), ("properties", _PROPERTIES))
    ):
        progress(f"store {name}", done)
        connection.execute(statement.encode(), values)
    with connection.cursor() as cursor:
        for row in _ticking(release.value_sets(), "value sets", progress):
            cursor.execute(
                "INSERT INTO terminology.value_set (system, url, version, content) VALUES (%s, %s, %s, %s)",
                (identity, row.url, row.version, orjson.dumps(row.resource)),
            )


def _replace(connection: psycopg.Connection[Any], identity: int, release: Release, count: int) -> bool:
    replaced = _delete(connection, release.url, release.version)
    connection.execute(
        "INSERT INTO terminology.code_system (id, url, version, name, kind, content, concepts)"
        " VALUES (%s, %s, %s, %s, %s, 'complete', %s)",
        (identity, release.url, release.version, release.name, release.kind, count),
    )
    return replaced > 0


def _delete(connection: psycopg.Connection[Any], url: str, version: str | None) -> int:
    rows = connection.execute(
        "DELETE FROM terminology.code_system WHERE url = %s AND (%s::text IS NULL OR version = %s) RETURNING id",
        (url, version, version),
    ).fetchall()
    for (identity,) in rows:
        for table in _TABLES:
            statement = SQL("DELETE FROM terminology.{} WHERE system = %s").format(Identifier(table))
            connection.execute(statement, (identity,))
    return len(rows)


def remove(database_url: str, url: str, version: str | None = None) -> int:
    """Remove a code system, all its versions when none is named; returns how many releases were removed."""
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        return _delete(connection, url, version)


def list_releases(database_url: str) -> list[dict[str, Any]]:
    """Return all imported releases, the newest import first; the first of each URL is the one in use."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT url, version, name, kind, concepts, imported FROM terminology.code_system ORDER BY id DESC"
        ).fetchall()
    names = ("url", "version", "name", "kind", "concepts", "imported")
    return [dict(zip(names, row, strict=True)) for row in rows]
