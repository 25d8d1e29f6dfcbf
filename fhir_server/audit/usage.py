"""Usage of the record by institution: AuditEvents counted by role, app, what was done and how it ended. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fhir_server.audit.accesses import access_of


@dataclass(frozen=True, slots=True)
class Usage:
    """What is known of an account today: its role and the id of its institution."""

    role: str
    institution: str | None


class UsageReport:
    """Counts events one by one.

    Parameters
    ----------
    accounts : by the name that events hold
    ai_clients : OAuth clients that are AI services
    """

    def __init__(self, accounts: Mapping[str, Usage], ai_clients: frozenset[str]) -> None:
        self._accounts, self._ai_clients = accounts, ai_clients
        self._counts: Counter[tuple[str, str, str, str, str]] = Counter()

    def add(self, event: dict[str, Any]) -> None:
        """Count one AuditEvent."""
        access = access_of(event, self._ai_clients)
        account = self._accounts.get(access.account or "")
        # What the event says goes before what the account is today.
        institution = (access.institution or "").removeprefix("Organization/")
        if not institution and account is not None:
            institution = account.institution or ""
        if account is not None:
            role = account.role
        elif access.account in (None, "anonymous", "unknown"):
            role = "not signed in"
        elif access.client in self._ai_clients:
            role = "ai-service"
        else:
            role = "service"
        self._counts[institution, role, access.client or "", access.kind, access.outcome] += 1

    def rows(self, institution: str | None = None) -> list[dict[str, Any]]:
        """Return the counts, sorted; with `institution`, only of that one."""
        names = ("institution", "role", "app", "action", "outcome")
        return [
            {**dict(zip(names, key, strict=True)), "count": count}
            for key, count in sorted(self._counts.items())
            if institution is None or key[0] == institution
        ]
