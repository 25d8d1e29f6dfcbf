"""Which identifier systems are sealed in a record, and the key of their index entries; both lie in it (ADR 0032).

The key is sealed by the data keys. It does not change with them: every entry would have to be made anew.
"""

from __future__ import annotations

import secrets
from typing import Any

from fhir_server.search.blind import BlindIndex
from fhir_server.store import registry
from fhir_server.store.sealed_content import ContentSealing
from foramen.identity.sealing import DataKeys
from foramen.kernel.crypto import DigestName
from foramen.kernel.errors import InteropError, UpstreamError

KEY_PURPOSE = "fhir identifier index"
_KEY_BYTES = 32
_LOCK = 0x464F5253


class SealedSystems:
    """What is sealed in the record of one service.

    Parameters
    ----------
    keys : data keys
    digest : of the index entries, for a record that has none yet
    wanted : systems by the setting
    """

    def __init__(self, keys: DataKeys, digest: DigestName, wanted: tuple[str, ...]) -> None:
        self.keys, self._digest, self._wanted = keys, digest, wanted
        self._sealing: ContentSealing | None = None

    async def begin(self, connection: Any) -> None:
        """Open the key of the index and put the systems of the setting in force for every process.

        Raises
        ------
        InteropError
            The key cannot be opened: the server must not start, as it would find and show no national identifier.
        """
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            if await connection.fetchval("SELECT sealed FROM fhir.identifier_key") is None:
                sealed = self.keys.seal(secrets.token_bytes(_KEY_BYTES), KEY_PURPOSE)
                await connection.execute(
                    "INSERT INTO fhir.identifier_key (digest, sealed) VALUES ($1, $2)", self._digest, sealed
                )
            await self._open(connection)
            new = await connection.fetch(
                "INSERT INTO fhir.sealed_system (system, complete)"
                " SELECT s, NOT EXISTS (SELECT FROM fhir.resource) AND NOT EXISTS (SELECT FROM fhir.history)"
                " FROM unnest($1::text[]) AS s ON CONFLICT DO NOTHING RETURNING system",
                list(self._wanted),
            )
            if new:
                await registry.lock_version(connection)

    async def load(self, connection: Any) -> ContentSealing:
        """Return what seals under the systems in force now."""
        records = await connection.fetch("SELECT system FROM fhir.sealed_system ORDER BY system")
        names = tuple(record["system"] for record in records)
        if self._sealing is None or self._sealing.blind.names != names:
            digest, key = await self._open(connection)
            self._sealing = ContentSealing(self.keys, BlindIndex(names, key, digest))
        return self._sealing

    async def _open(self, connection: Any) -> tuple[DigestName, bytes]:
        record = await connection.fetchrow("SELECT digest, sealed FROM fhir.identifier_key")
        if record is None:
            raise InteropError("The key of the identifier index is missing")
        try:
            return record["digest"], self.keys.unseal(record["sealed"], KEY_PURPOSE)
        except UpstreamError:
            raise
        except InteropError as exc:
            raise InteropError(
                "The data keys cannot open the identifiers of this record: put their file back (docs/how-to/keys.md)"
            ) from exc


async def states(connection: Any) -> list[tuple[str, bool]]:
    """Return the systems, and whether everything that was stored before is sealed."""
    records = await connection.fetch("SELECT system, complete FROM fhir.sealed_system ORDER BY system")
    return [(record["system"], record["complete"]) for record in records]


async def complete(connection: Any, systems: list[str]) -> None:
    """Note that everything of these systems is sealed."""
    await connection.execute("UPDATE fhir.sealed_system SET complete = true WHERE system = ANY($1::text[])", systems)
