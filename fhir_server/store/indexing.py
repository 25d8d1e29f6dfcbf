"""Rebuild the search index when the registry of search parameters has changed since it was built.

The index holds nothing of its own: every entry can be found again from the stored bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fhir_server.search import parameters
from fhir_server.search.hashing import hash64
from fhir_server.search.index import extractor
from fhir_server.store.connections import Connections
from fhir_server.store.rebuilding import fill

_SOURCES = ("values.py", "index.py", "composites.py", "dates.py", "hashing.py", "r4_search_parameters.json")
_LOCK = 0x464F5249
_PAGE = 500


def index_version() -> str:
    """Fingerprint of everything that decides what is indexed."""
    folder = Path(parameters.__file__).parent
    text = "".join((folder / name).read_text(encoding="utf-8") for name in _SOURCES)
    return f"{hash64(text):x}"


async def reindex_if_needed(connections: Connections, own_url: str) -> None:
    """Rebuild the index in one transaction, unless it was built by this version and for this base URL."""
    wanted = f"{index_version()} {own_url}"
    async with connections.lend() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        found = await connection.fetchval("SELECT value FROM fhir.setting WHERE name = 'index'")
        if found == wanted:
            return
        await _rebuild(connection, own_url)
        await connection.execute(
            "INSERT INTO fhir.setting VALUES ('index', $1) ON CONFLICT (name) DO UPDATE SET value = $1", wanted
        )


async def _rebuild(connection: Any, own_url: str) -> None:
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM fhir.resource)"):
        return
    await connection.execute("SET LOCAL statement_timeout = 0")
    await connection.execute("TRUNCATE fhir.posting, fhir.date_value, fhir.string_value, fhir.number_value")
    last = -(2**63)
    while True:
        records = await connection.fetch(
            "SELECT row, type, id, content FROM fhir.resource WHERE row > $1 AND content IS NOT NULL"
            " ORDER BY row LIMIT $2",
            last,
            _PAGE,
        )
        if not records:
            return
        last = records[-1]["row"]
        await fill(connection, records, lambda kind: extractor(kind, own_url))
