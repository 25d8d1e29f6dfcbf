"""What a person decides about drift that is not mended by itself. One transaction: rows, note for the intake, audit."""

from __future__ import annotations

from typing import Any

from dicomweb.reconciliation import rows
from dicomweb.reconciliation.drifts import audit
from dicomweb.reconciliation.kinds import KINDS, MISSING, RECORD_DELETED
from dicomweb.reconciliation.levels import make_anew
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import ConflictError, NotFoundError

_FOUND = "SELECT study_instance_uid, kind, state FROM dicomweb.drift WHERE id = $1 FOR UPDATE"
_CONFIRMED = "UPDATE dicomweb.drift SET state = 'confirmed', ended_at = now(), decided_by = $2 WHERE id = $1"
_HELD = "SELECT 1 FROM dicomweb.legal_hold WHERE study_instance_uid = $1 AND released_at IS NULL"


async def confirm(connection: Any, drift: int, archived: set[str], who: AccessContext, trace_id: str) -> str:
    """Confirm what was found: instances that went are gone, a deleted ImagingStudy is written again.

    Parameters
    ----------
    connection : inside a transaction
    archived : SOP Instance UIDs that the archive has of the study now: what came back is not given up

    Returns
    -------
    The Study Instance UID; it is brought into line by the intake.

    Raises
    ------
    NotFoundError
        There is no such finding.
    ConflictError
        It is not open, it goes away with its cause alone, or the study is under a legal hold.
    """
    found = await connection.fetchrow(_FOUND, drift)
    if found is None:
        raise NotFoundError("There is no such finding")
    study, kind = str(found["study_instance_uid"]), KINDS[found["kind"]]
    if found["state"] != "open":
        raise ConflictError("It is decided already, or mended")
    if not kind.can_confirm:
        raise ConflictError("It ends when its cause is mended in the archive or in the record")
    if kind is MISSING:
        if await connection.fetchval(_HELD, study):
            raise ConflictError("The study is under a legal hold: its images have to be brought back")
        lost = [one.sop_instance_uid for one in await rows.indexed(connection, study)]
        await rows.remove(connection, study, sorted(set(lost) - archived))
        await make_anew(connection, study)
    if kind is RECORD_DELETED:
        await connection.execute(
            "UPDATE dicomweb.study SET recorded = NULL, imaging_study = NULL WHERE study_instance_uid = $1", study
        )
    await connection.execute(_CONFIRMED, drift, who.subject)
    await audit(connection, f"confirm-{kind.code}", study, trace_id, who)
    await rows.note_change(connection, study, trace_id)
    return study
