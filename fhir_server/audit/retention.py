"""How long AuditEvents are kept, and whether one may be removed by now.

等保三级 (GB/T 22239-2019, 8.1.4.3) and 网络安全法 ask for logs of six months or more. docs/how-to/audit.md
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from fhir_server.store import audit_chain

LEAST_DAYS = 180
"""Less can be set by nobody, whatever the caller was configured with."""


def kept_since(retention_days: int, now: datetime | None = None) -> datetime:
    """Return the moment from which on AuditEvents are kept; only what is older may be removed.

    Parameters
    ----------
    retention_days : `Settings.audit_retention_days`; below 180 it counts as 180
    now : aware time; default: now
    """
    return (now or datetime.now(UTC)) - timedelta(days=max(retention_days, LEAST_DAYS))


def is_past_retention(written: datetime, sealed: datetime | None, retention_days: int, now: datetime) -> bool:
    """Whether an AuditEvent may be removed, as far as its age goes.

    Parameters
    ----------
    written : when it was written (`meta.lastUpdated`)
    sealed : when the block that lists it was sealed; None: not yet, and then it stays
    """
    limit = kept_since(retention_days, now)
    return sealed is not None and written < limit and sealed < limit


async def may_be_removed(connection: Any, logical_id: str, retention_days: int) -> bool:
    """Whether the AuditEvent of this id may be removed now; False also when there is none.

    The only way to remove it is `$expunge` of whole blocks from the beginning of the chain (docs/api/expunge.md): no
    other part may delete an AuditEvent, and `foramen audit verify` finds one that was deleted otherwise.
    """
    found = await audit_chain.sealed(connection, logical_id)
    return found is not None and is_past_retention(*found, retention_days, datetime.now(UTC))
