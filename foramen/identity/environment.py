"""What every endpoint of the authorization server works with; built once in `app.py`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import httpx
from sqlalchemy import Connection

from foramen.identity.audit_outbox import AuditDelivery
from foramen.identity.database import IdentityDatabase
from foramen.identity.federation.documents import OutsideDocuments
from foramen.identity.oauth.authorization_server import SmartAuthorizationServer
from foramen.identity.oauth.remote_keys import RemoteKeys
from foramen.identity.oauth.signing import TokenSigner
from foramen.identity.rights.break_glass_alerts import BreakGlassAlerts
from foramen.identity.sealing import DataKeys
from foramen.kernel.settings import Settings
from foramen.kernel.tokens import TokenVerifier

MOUNT = "/auth"


@dataclass(frozen=True, slots=True)
class Environment:
    """The parts an endpoint may use."""

    settings: Settings
    database: IdentityDatabase
    signer: TokenSigner
    verifier: TokenVerifier
    audit: AuditDelivery
    csrf_secret: str
    data_keys: DataKeys
    remote_keys: RemoteKeys
    break_glass_alerts: BreakGlassAlerts
    transport: httpx.AsyncBaseTransport | None = None
    outside: OutsideDocuments = field(default_factory=OutsideDocuments)
    # Argon2id takes 64 MiB a time: more at once would only make everybody wait, and memory run out.
    password_checks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))

    _servers: WeakKeyDictionary[Connection, SmartAuthorizationServer] = field(default_factory=WeakKeyDictionary)

    def server(self, connection: Connection) -> SmartAuthorizationServer:
        """Return the authorization server of one transaction, always the same one."""
        server = self._servers.get(connection)
        if server is None:
            server = SmartAuthorizationServer(connection, self.settings, self.signer, self.remote_keys)
            self._servers[connection] = server
        return server

    @property
    def secure(self) -> bool:
        """Whether browsers reach us by https, so that cookies can be `Secure` and `__Host-`."""
        return self.settings.origin.startswith("https://")
