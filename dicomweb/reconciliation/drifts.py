"""What was found out of line: one row each, with its audit event in the same transaction. UIDs and numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from dicomweb.reconciliation.kinds import MISSING, RECORD_DELETED, Kind
from foramen.kernel.access_context import AccessContext
from foramen.kernel.audit_event import audit_event

OURSELVES = AccessContext("foramen-intake", "foramen-intake", ())
_MOST_NAMED = 50
"""So many SOP Instance UIDs a row names; all are counted."""
_MENDED = """INSERT INTO dicomweb.drift (study_instance_uid, kind, state, instances, detail, ended_at, trace_id)
    VALUES ($1, $2, 'mended', $3, $4, now(), $5)"""
_OPEN = """INSERT INTO dicomweb.drift (study_instance_uid, kind, state, instances, detail, trace_id)
    VALUES ($1, $2, 'open', $3, $4, $5)
    ON CONFLICT (study_instance_uid, kind) WHERE state = 'open'
    DO UPDATE SET seen_at = now(), instances = EXCLUDED.instances, detail = EXCLUDED.detail
    RETURNING xmax = 0"""
_RESOLVED = """UPDATE dicomweb.drift SET state = 'resolved', ended_at = now()
    WHERE study_instance_uid = $1 AND state = 'open' AND kind <> ALL($2::text[]) RETURNING kind"""
_THERE = """SELECT sop_instance_uid FROM dicomweb.instance WHERE study_instance_uid = $1
    AND sop_instance_uid = ANY($2::text[]) ORDER BY 1"""
_RECORDED = "SELECT recorded IS NOT NULL FROM dicomweb.study WHERE study_instance_uid = $1"
_AUDIT = "INSERT INTO dicomweb.audit_outbox (event) VALUES ($1)"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing out of line in a study; `uids`: SOP Instance UIDs it is about."""

    kind: Kind
    uids: Sequence[str] = ()
    count: int = 0

    @property
    def instances(self) -> int:
        """How many instances it is about."""
        return len(self.uids) or self.count

    @property
    def detail(self) -> dict[str, Any]:
        """What the row names."""
        return {"sopInstanceUIDs": list(self.uids[:_MOST_NAMED])} if self.uids else {}


async def mended(connection: Any, study: str, findings: Sequence[Finding], trace_id: str) -> None:
    """Write what was set right, in the transaction of the mend (or, of the record's part, right after it)."""
    for one in findings:
        await connection.execute(_MENDED, study, one.kind.code, one.instances, one.detail, trace_id)
        await audit(connection, f"reconcile-{one.kind.code}", study, trace_id)


async def open_findings(connection: Any, study: str, findings: Sequence[Finding], trace_id: str) -> None:
    """Write what waits for a person; open ones that were not found again are resolved."""
    for one in findings:
        new = await connection.fetchval(_OPEN, study, one.kind.code, one.instances, one.detail, trace_id)
        if new:
            await audit(connection, f"drift-{one.kind.code}", study, trace_id)
    gone = await connection.fetch(_RESOLVED, study, [one.kind.code for one in findings])
    for row in gone:
        await audit(connection, f"drift-resolved-{row[0]}", study, trace_id)


async def still_so(connection: Any, study: str, findings: Sequence[Finding]) -> list[Finding]:
    """Leave out what somebody confirmed while it was looked for: lost instances, a deleted ImagingStudy."""
    left = []
    for one in findings:
        if one.kind is MISSING:
            rows = await connection.fetch(_THERE, study, list(one.uids))
            one = Finding(MISSING, [row[0] for row in rows])
            if not one.uids:
                continue
        if one.kind is RECORD_DELETED and not await connection.fetchval(_RECORDED, study):
            continue
        left.append(one)
    return left


async def audit(
    connection: Any, interaction: str, study: str, trace_id: str, who: AccessContext = OURSELVES, status: int = 200
) -> None:
    """Leave an audit event in the caller's transaction."""
    event = audit_event(
        interaction=interaction,
        source="dicomweb",
        status=status,
        recorded=datetime.now(UTC),
        trace_id=trace_id,
        context=who,
        entity=f"urn:oid:{study}",
        patient=await connection.fetchval(
            "SELECT patient_ref FROM dicomweb.study WHERE study_instance_uid = $1", study
        ),
    )
    await connection.execute(_AUDIT, orjson.dumps(event).decode())
