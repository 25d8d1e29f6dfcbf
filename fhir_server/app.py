"""The FHIR service: one ASGI application over the routes table; authentication, refusals and audit at its edge.

https://hl7.org/fhir/R4/http.html
"""

from __future__ import annotations

from fhir_server.audit.writer import AuditWriter
from fhir_server.edge import Edge
from fhir_server.server import Server
from fhir_server.settings import FhirSettings
from fhir_server.store.connections import Connections
from fhir_server.store.indexing import reindex_if_needed
from fhir_server.store.rows import RowNumbers
from fhir_server.store.schema import migrate as migrate_schema
from foramen.kernel.errors import UpstreamError
from foramen.kernel.settings import Settings
from foramen.kernel.tokens import TokenVerifier

# A read's event survives the web process at once and the database's crash within its write-ahead interval (0.2 s);
# a write's event is committed with the write itself.
_AUDIT_SESSION = "SET synchronous_commit = off"


def migrate(database_url: str) -> None:
    """Bring the schema `fhir` up to date; safe when several processes start at once."""
    migrate_schema(database_url)


class FhirService:
    """The record, ready to be mounted at `/fhir`."""

    def __init__(self, settings: Settings, database_url: str, verifier: TokenVerifier) -> None:
        limits = FhirSettings()
        self._connections = Connections(database_url, limits.connections, limits.statement_timeout_s)
        self._audit_connections = Connections(database_url, 1, limits.statement_timeout_s, _AUDIT_SESSION)
        rows = RowNumbers()
        self._audit = AuditWriter(self._audit_connections, rows, settings.fhir_base)
        self._server = Server(limits, settings.fhir_base, settings.max_body_bytes, self._connections, rows, self._audit)
        self.app = Edge(self._server, verifier)

    async def start(self) -> None:
        """Open connections, bring the index up to the registry's version, start the audit writer."""
        await self._connections.start()
        await self._audit_connections.start()
        await reindex_if_needed(self._connections, self._server.own_url)
        await self._audit.start()

    async def stop(self) -> None:
        """Write what is still to be audited and close."""
        await self._audit.stop()
        await self._audit_connections.stop()
        await self._connections.stop()

    async def ready(self) -> bool:
        """Whether the database answers."""
        try:
            async with self._connections.lend() as connection:
                return bool(await connection.fetchval("SELECT true"))
        except UpstreamError:
            return False
