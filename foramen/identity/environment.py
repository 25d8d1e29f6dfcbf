"""What every endpoint of the authorization server works with; built once in `app.py`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import httpx
from sqlalchemy import Connection

from foramen.identity.audit_outbox import AuditDelivery
from foramen.identity.authorization_server import SmartAuthorizationServer
from foramen.identity.database import IdentityDatabase
from foramen.identity.signing import TokenSigner
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
    transport: httpx.AsyncBaseTransport | None = None
    # Argon2id takes 64 MiB a time: more at once would only make everybody wait, and memory run out.
    password_checks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))

    def server(self, connection: Connection) -> SmartAuthorizationServer:
        """Return the authorization server of one transaction."""
        return SmartAuthorizationServer(connection, self.settings, self.signer)

    @property
    def secure(self) -> bool:
        """Whether browsers reach us by https, so that cookies can be `Secure` and `__Host-`."""
        return self.settings.origin.startswith("https://")
