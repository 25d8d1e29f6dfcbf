"""How PostgreSQL answers a search of `foramen bench dicomweb`: the gateway's own statement, with its values, explained.

https://www.postgresql.org/docs/18/sql-explain.html. Nobody's access limits it here, as in the benchmark.
"""

from __future__ import annotations

import asyncio
import re
from urllib.parse import parse_qsl, urlsplit

from dicomweb.database import Database
from dicomweb.index.levels import Level
from dicomweb.search.answer import Answer
from dicomweb.search.matching import Matcher
from dicomweb.search.parameters import parse
from dicomweb.visibility import Visible

_LEVELS: dict[str, Level] = {"studies": "study", "series": "series", "instances": "instance"}
_STUDY = re.compile(r"/studies/([0-9.]+)/")


def plan_of(database_url: str, path: str) -> list[str]:
    """Return the lines of EXPLAIN (ANALYZE, BUFFERS) of the page that a search asks for.

    Parameters
    ----------
    path : of a search below the base of the API, e.g. ``/studies?PatientID=…``
    """
    return asyncio.run(_explained(database_url, path))


async def _explained(database_url: str, path: str) -> list[str]:
    parts = urlsplit(path)
    named = _STUDY.match(parts.path)
    level = _LEVELS[parts.path.rsplit("/", 1)[-1]]
    asked = parse(level, parse_qsl(parts.query, keep_blank_values=True), {"study": named[1]} if named else {})
    visible = Visible("true", "true", "true", [])
    matcher = Matcher(asked, visible)
    where = matcher.where()
    statement = Answer(asked, visible, "").select(where, matcher.bind(asked.limit + 1), matcher.bind(asked.offset))
    database = Database(database_url, planned_anew=True)
    try:
        async with database.connection() as connection:
            await connection.fetch(statement, *matcher.values)  # Warm, as the search was.
            explain = f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, SUMMARY ON) {statement}"
            return [row[0] for row in await connection.fetch(explain, *matcher.values)]
    finally:
        await database.close()


def summary(plan: list[str]) -> str:
    """Return a plan in a line: which indexes it used, what it read whole, and its times."""
    used = list(dict.fromkeys(re.findall(r"(?:using|Index Scan on) (\w+)", "\n".join(plan))))
    whole = list(dict.fromkeys(re.findall(r"Seq Scan on (\w+)", "\n".join(plan))))
    times = [line.strip() for line in plan if line.startswith(("Planning Time", "Execution Time"))]
    read = [f"all of {', '.join(whole)}"] if whole else []
    return "; ".join([", ".join(used) or "no index", *read, *times])
