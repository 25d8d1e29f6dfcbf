"""The re-identification table: what stands behind a project's pseudonyms, sealed; read with a permission, and audited.

Sealed by a key that is derived from the project's own key, and bound to project, kind and pseudonym: whoever deletes
the project's key file cuts this link, too (docs/api/pseudonymised-export.md). ADR 0038.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

import psycopg

from foramen.kernel.access_context import AccessContext
from foramen.kernel.audit_event import audit_event
from foramen.kernel.crypto.aead import CipherName, cipher
from foramen.kernel.errors import ForbiddenError, NotFoundError, UpstreamError
from foramen.kernel.identifiers import new_trace_id

PERMISSION = "reidentify"
_PURPOSE = "reidentification"


@dataclass(frozen=True, slots=True)
class Link:
    """A pseudonym and what it stands for."""

    kind: str
    pseudonym: str
    original: Mapping[str, str] = field(repr=False)


class ReidentificationTable:
    """The links of one project.

    Parameters
    ----------
    key : the project's key
    """

    def __init__(self, database_url: str, project: str, key: bytes, cipher_name: CipherName) -> None:
        self._url, self._project = database_url, project
        self._secret, self._cipher = sha256(key).digest(), cipher_name

    def add(self, links: Iterable[Link]) -> None:
        """Keep links; those that are there stay. Durable when this returns.

        Raises
        ------
        UpstreamError
            The database does not answer.
        """
        rows = [(self._project, one.kind, one.pseudonym, self._sealed(one)) for one in links]
        try:
            with psycopg.connect(self._url) as connection, connection.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO dicomweb.reidentification (project, kind, pseudonym, sealed) VALUES (%s, %s, %s, %s)"
                    " ON CONFLICT DO NOTHING",
                    rows,
                )
        except psycopg.OperationalError as exc:
            raise UpstreamError("The database with the re-identification table does not answer") from exc

    def record(self, interaction: str, context: AccessContext, status: int = 200) -> None:
        """Leave an audit event: of an export, say."""
        with psycopg.connect(self._url) as connection:
            _record(connection, interaction, self._project, context, status)

    def find(self, pseudonym: str, context: AccessContext, permissions: Iterable[str]) -> Link:
        """Return what a pseudonym stands for; asking is audited, whether it is allowed or not.

        Raises
        ------
        ForbiddenError
            The account lacks the permission.
        NotFoundError
            The project has no such pseudonym.
        """
        allowed = PERMISSION in set(permissions)
        with psycopg.connect(self._url) as connection:
            row = None
            if allowed:
                row = connection.execute(
                    "SELECT kind, sealed FROM dicomweb.reidentification WHERE project = %s AND pseudonym = %s",
                    (self._project, pseudonym),
                ).fetchone()
            _record(connection, "reidentify", self._project, context, 403 if not allowed else 200 if row else 404)
        # The event is durable from here on; only now anything is told.
        if not allowed:
            raise ForbiddenError(f"Re-identification needs the permission {PERMISSION}")
        if row is None:
            raise NotFoundError("The project has no such pseudonym")
        return self._opened(str(row[0]), pseudonym, bytes(row[1]))

    def _associated(self, kind: str, pseudonym: str, name: str) -> bytes:
        return f"{name}\0{self._project}\0{kind}\0{pseudonym}".encode()

    def _sealed(self, link: Link) -> bytes:
        with_cipher = cipher(self._cipher)
        key = with_cipher.key(self._secret, _PURPOSE)
        associated = self._associated(link.kind, link.pseudonym, self._cipher)
        plain = json.dumps(dict(link.original), ensure_ascii=False).encode()
        return self._cipher.encode() + b"\0" + with_cipher.encrypt(key, plain, associated)

    def _opened(self, kind: str, pseudonym: str, sealed: bytes) -> Link:
        name, _, body = sealed.partition(b"\0")
        with_cipher = cipher(name.decode())
        key = with_cipher.key(self._secret, _PURPOSE)
        plain = with_cipher.decrypt(key, body, self._associated(kind, pseudonym, name.decode()))
        return Link(kind, pseudonym, json.loads(plain))


def _record(
    connection: psycopg.Connection[tuple[object, ...]],
    interaction: str,
    project: str,
    context: AccessContext,
    status: int,
) -> None:
    event = audit_event(
        interaction=interaction,
        source="dicomweb",
        status=status,
        recorded=datetime.now(UTC),
        trace_id=new_trace_id(),
        context=context,
        entity=f"urn:foramen:project:{project}",
    )
    connection.execute("INSERT INTO dicomweb.audit_outbox (event) VALUES (%s)", (json.dumps(event),))
