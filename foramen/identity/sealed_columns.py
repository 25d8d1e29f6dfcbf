"""Everything the database keeps sealed: the column, and what binds a value to its row.

A value that is copied to another row, column or person does not open there (associated data).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Table

from foramen.identity import tables


def totp_purpose(account: str, device: uuid.UUID) -> str:
    """Secret of an authenticator app."""
    return f"totp:{account}:{device}"


def provider_purpose(provider_id: str) -> str:
    """Client secret at an outside identity provider."""
    return f"identity provider {provider_id}"


def journey_purpose(state_digest: str) -> str:
    """Where a browser goes after it came back from a provider."""
    return f"federation {state_digest}"


def id_token_purpose(issuer: str, subject: str) -> str:
    """The id_token a session began with."""
    return f"id_token {issuer} {subject}"


def trial_purpose(trial_id: str, session_digest: str) -> str:
    """State and tokens of a trial of the launcher."""
    return f"launch trial {trial_id} of {session_digest}"


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column, the key of its table, and the columns that `purpose` takes, in order."""

    table: Table
    name: str
    key: str
    bound_to: tuple[str, ...]
    purpose: Callable[..., str]

    @property
    def column(self) -> Column[Any]:
        """The sealed column."""
        return self.table.c[self.name]

    @property
    def key_column(self) -> Column[Any]:
        """The column that tells rows apart."""
        return self.table.c[self.key]


SEALED_COLUMNS = (
    SealedColumn(tables.totp_device, "sealed_secret", "id", ("account", "id"), totp_purpose),
    SealedColumn(tables.identity_provider, "sealed_secret", "id", ("id",), provider_purpose),
    SealedColumn(tables.federation_request, "sealed_destination", "state_digest", ("state_digest",), journey_purpose),
    SealedColumn(
        tables.federated_session, "sealed_id_token", "session_digest", ("issuer", "subject"), id_token_purpose
    ),
    SealedColumn(tables.launch_trial, "sealed", "id", ("id", "session_digest"), trial_purpose),
)
