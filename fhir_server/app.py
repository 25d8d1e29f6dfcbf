"""The FHIR service: one ASGI application over the routes table; authentication, refusals and audit at its edge.

https://hl7.org/fhir/R4/http.html
"""

from __future__ import annotations

import asyncio
from functools import partial

from fhir_server.access.consents import Consents
from fhir_server.access.restriction import Restrictions
from fhir_server.audit.indexer import AuditIndexer
from fhir_server.audit.seal import install as install_seal
from fhir_server.audit.sealer import AuditSealer
from fhir_server.audit.writer import AuditWriter
from fhir_server.bulk.service import Bulk
from fhir_server.edge import Edge
from fhir_server.interactions import asynchronous
from fhir_server.interactions.group_commit import CONNECTIONS, LOCK_TIMEOUT_MS, GroupCommit
from fhir_server.jobs.runner import JobRunner
from fhir_server.packages.catalogue import Catalogue
from fhir_server.packages.sources import StoredOrPackaged
from fhir_server.packages.stored import StoredDefinitions
from fhir_server.search.blind import parse_systems
from fhir_server.server import Server
from fhir_server.settings import FhirSettings
from fhir_server.store import indexing, parameter_jobs, sealing_jobs
from fhir_server.store.connections import Connections
from fhir_server.store.current import CurrentReader
from fhir_server.store.full_text import FullTextIndexer
from fhir_server.store.gathered_pages import GatheredPageReader
from fhir_server.store.registry import RegistryWatch
from fhir_server.store.replicas import Searches
from fhir_server.store.rows import RowNumbers
from fhir_server.store.schema import migrate as migrate_schema
from fhir_server.store.sealed_systems import SealedSystems
from fhir_server.subject_rights import register as subject_rights
from fhir_server.terminology_source import StoredTerminology
from foramen.identity.sealing import open_data_keys, protect_files, watch_data_keys
from foramen.kernel.errors import UpstreamError
from foramen.kernel.settings import Settings
from foramen.kernel.tokens import TokenVerifier
from terminology.service import Terminology
from terminology.store.schema import migrate as migrate_terminology


def migrate(database_url: str) -> None:
    """Bring the schema `fhir` up to date; safe when several processes start at once."""
    migrate_schema(database_url)
    migrate_terminology(database_url)


class FhirService:
    """The record, ready to be mounted at `/fhir`."""

    def __init__(self, settings: Settings, database_url: str, verifier: TokenVerifier) -> None:
        limits = FhirSettings()
        timeout_s, wait_s = limits.statement_timeout_s, limits.connection_wait_s
        self._connections = Connections(database_url, limits.connections, timeout_s, wait_s=wait_s)
        # Each its own: every request waits for the writer, which must wait for neither of the others.
        self._audit_connections = Connections(database_url, 1, timeout_s, wait_s=wait_s)
        self._audit_index_connections = Connections(database_url, 2, timeout_s, wait_s=wait_s)
        self._audit_seal_connections = Connections(database_url, 1, timeout_s)
        # Its own connection: a profile may be looked up while the write that needs it holds one of the others.
        self._package_connections = Connections(database_url, 1, timeout_s, wait_s=wait_s)
        stored = StoredDefinitions(self._package_connections, limits, settings.fhir_base)
        self._packages = Catalogue(self._package_connections, stored)
        # Their own connections: codes are looked up while a search or write that needs them holds one of the others.
        self._lookup_connections = Connections(database_url, 2, timeout_s, wait_s=wait_s)
        self._full_text = FullTextIndexer(self._lookup_connections, on=limits.full_text)
        self._group_connections = Connections(
            database_url, CONNECTIONS, timeout_s, f"SET lock_timeout = {LOCK_TIMEOUT_MS}", wait_s
        )
        rows = RowNumbers()
        self._data_keys = open_data_keys(settings)
        protect_files(settings, self._data_keys)
        seal = install_seal(settings.home, settings.digest)
        self._sealer = AuditSealer(
            self._audit_seal_connections, seal, settings.home, settings.fhir_base, settings.audit_signature
        )
        systems = SealedSystems(self._data_keys, settings.digest, parse_systems(limits.national_identifiers))
        self._registry = RegistryWatch(self._connections, systems)
        self._key_watch: asyncio.Task[None] | None = None
        self._audit = AuditWriter(self._audit_connections)
        refresh = partial(self._registry.refresh, max_age_s=0.0)
        delay_s = limits.audit_index_delay_s
        self._indexer = AuditIndexer(self._audit_index_connections, rows, settings.fhir_base, delay_s, refresh)
        self._jobs = JobRunner(database_url, limits)
        self._consents = Consents(self._connections, database_url, settings.fhir_base) if limits.consent else None
        urls = [url.strip() for url in limits.replica_urls.split(",") if url.strip()]
        replicas = [Connections(url, limits.replica_connections, timeout_s, wait_s=wait_s) for url in urls]
        self._searches = Searches(self._connections, replicas, limits.replica_wait_s)
        self._jobs.register(indexing.KIND, indexing.Reindexer(settings.fhir_base, limits).run)
        self._jobs.register(sealing_jobs.KIND, sealing_jobs.IdentifierSealer(settings.fhir_base, limits).run)
        builder = parameter_jobs.ParameterBuilder(settings.fhir_base, limits)
        self._jobs.register(parameter_jobs.KIND, builder.run, parallel=2)
        self._server = Server(
            limits=limits,
            own_url=settings.fhir_base,
            max_body_bytes=settings.max_body_bytes,
            connections=self._connections,
            rows=rows,
            audit=self._audit,
            audit_indexer=self._indexer,
            audit_sealer=self._sealer,
            audit_retention_days=settings.audit_retention_days,
            current=CurrentReader(self._connections),
            group_commit=GroupCommit(self._group_connections),
            jobs=self._jobs,
            registry=self._registry,
            searches=self._searches,
            pages=GatheredPageReader(self._searches),
            bulk=Bulk(settings.home, limits, settings.fhir_base, self._jobs, self._consents, self._indexer),
            packages=self._packages,
            lookups=self._lookup_connections,
            restrictions=Restrictions(self._connections),
            terminology=Terminology(
                self._lookup_connections,
                StoredOrPackaged(
                    StoredTerminology(self._lookup_connections, limits, settings.fhir_base), self._packages
                ),
                max_expansion=limits.max_value_set_codes,
            ),
            consents=self._consents,
            institutions=settings.institutions,
        )
        self._server.group_commit.serve(self._server)
        self._server.bulk.serve(self._server)
        asynchronous.register(self._server)
        subject_rights.register(self._server)
        self.app = Edge(self._server, verifier)

    async def start(self) -> None:
        """Open connections, bring the index up to the registry's version, start the audit writer."""
        await self._connections.start()
        await self._audit_connections.start()
        await self._audit_index_connections.start()
        await self._audit_seal_connections.start()
        await self._group_connections.start()
        await self._package_connections.start()
        await self._lookup_connections.start()
        await self._searches.start()
        await self._registry.start()
        self._key_watch = asyncio.create_task(watch_data_keys(self._data_keys), name="fhir-data-keys")
        await indexing.bring_up_to_date(self._connections, self._server.own_url, self._jobs, self._server.limits)
        await parameter_jobs.resume(self._connections, self._jobs)
        await sealing_jobs.resume(self._connections, self._jobs)
        await self._registry.refresh(max_age_s=0.0)
        await self._sealer.start()
        await self._audit.start()
        await self._indexer.start()
        await self._full_text.start()
        await self._jobs.start()

    async def stop(self) -> None:
        """Write what is still to be audited and close."""
        await self._jobs.stop()
        if self._consents is not None:
            await self._consents.stop()
        await self._indexer.stop()
        await self._audit.stop()
        await self._sealer.stop()
        if self._key_watch is not None:
            self._key_watch.cancel()
            await asyncio.gather(self._key_watch, return_exceptions=True)
        await self._registry.stop()
        await self._searches.stop()
        await self._audit_connections.stop()
        await self._audit_index_connections.stop()
        await self._audit_seal_connections.stop()
        await self._group_connections.stop()
        await self._package_connections.stop()
        await self._full_text.stop()
        await self._lookup_connections.stop()
        await self._connections.stop()

    async def ready(self) -> bool:
        """Whether the database answers."""
        try:
            async with self._connections.lend() as connection:
                return bool(await connection.fetchval("SELECT true"))
        except UpstreamError:
            return False
