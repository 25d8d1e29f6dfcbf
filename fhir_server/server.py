"""What every interaction needs, built once by `app.py`: limits, connections, row numbers, the audit writer.

A `Call` is one request after authentication.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from fhir_server.access.consents import Consents
from fhir_server.access.policy import Access
from fhir_server.access.restriction import Restrictions
from fhir_server.audit.indexer import AuditIndexer
from fhir_server.audit.sealer import AuditSealer
from fhir_server.audit.writer import AuditWriter
from fhir_server.jobs.runner import JobRunner
from fhir_server.packages.catalogue import Catalogue
from fhir_server.search.completeness import WatchedParser
from fhir_server.search.parse import SearchParser
from fhir_server.settings import FhirSettings
from fhir_server.store.connections import Connections
from fhir_server.store.current import CurrentReader
from fhir_server.store.gathered_pages import GatheredPageReader
from fhir_server.store.registry import RegistryWatch
from fhir_server.store.replicas import Searches
from fhir_server.store.rows import RowNumbers
from terminology.service import Terminology

if TYPE_CHECKING:
    from fhir_server.bulk.service import Bulk
    from fhir_server.interactions.group_commit import GroupCommit


@dataclass(slots=True)
class Server:
    """The parts behind the API."""

    limits: FhirSettings
    own_url: str
    max_body_bytes: int
    connections: Connections
    rows: RowNumbers
    audit: AuditWriter
    audit_indexer: AuditIndexer
    audit_sealer: AuditSealer
    audit_retention_days: int
    current: CurrentReader
    group_commit: GroupCommit
    jobs: JobRunner
    registry: RegistryWatch
    searches: Searches
    pages: GatheredPageReader
    bulk: Bulk
    terminology: Terminology
    packages: Catalogue
    lookups: Connections
    restrictions: Restrictions
    consents: Consents | None = None
    institutions: str = "separate"
    """Whether institutions divide the record; who forgets to say it gets walls."""


@dataclass(slots=True)
class Call:
    """One authenticated request.

    `committing` takes the answer of a transaction inside its database transaction (a request carried out as a job).
    `entity`, `patient` and `audited` are what the interaction tells the audit: what was touched, whose record it is,
    and whether the AuditEvent was already written in the interaction's own database transaction. `shown` is what the
    answer holds of records, as `audit.record.references_of` reads it; `operation` names an operation.
    """

    server: Server
    request: Request
    access: Access
    trace_id: str
    action: str
    audit_code: str
    resource_type: str = ""
    logical_id: str = ""
    version_id: str = ""
    entity: str | None = None
    patient: str | None = None
    audited: bool = False
    shown: list[str] = field(default_factory=list)
    operation: str | None = None
    committing: Callable[[Any, bytes], Awaitable[None]] | None = None
    pairs: list[tuple[str, str]] = field(default_factory=list)

    @property
    def strict(self) -> bool:
        """Whether the client asked for `Prefer: handling=strict`."""
        return "handling=strict" in self.request.headers.get("prefer", "")

    @property
    def minimal(self) -> bool:
        """Whether the client asked for `Prefer: return=minimal`."""
        return "return=minimal" in self.request.headers.get("prefer", "")

    @property
    def full(self) -> bool:
        """Whether the client asked for `Prefer: return=representation`."""
        return "return=representation" in self.request.headers.get("prefer", "")

    def parser(self) -> SearchParser:
        """Return the search parser of this caller."""
        return WatchedParser(self.server.limits, self.server.own_url, self.access)
