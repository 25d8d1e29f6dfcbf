"""Permanent deletion: a durable intent first, then steps that may be done twice: a kill ends in one truth.

Order: intent (row, in the transaction of the rights, holds and terms) → files out of the archive → copies out of the
nearline folder → rows. Until the last step the rows stay rejected, so nothing of it is ever half visible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dicomweb.lifecycle.legal_holds import require_not_held
from dicomweb.rejection import rows
from dicomweb.rejection.changes import NOT_FOUND, Asker, standing
from dicomweb.rejection.rows import Connection, Target
from dicomweb.rejection.terms import require_terms_ended
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import ConflictError, NotFoundError
from foramen.kernel.settings import Settings

WAITS_FOR_FORWARDING = "a rejection note is still being forwarded"
_MARK = """UPDATE dicomweb.rejected_instance SET deletion = %s
    WHERE study_instance_uid = %s AND sop_instance_uid = ANY(%s) AND deletion IS NULL"""
_NOTES_TOO = """UPDATE dicomweb.rejected_instance n SET deletion = %s
    WHERE n.study_instance_uid = %s AND n.is_note AND n.deletion IS NULL AND NOT EXISTS (
        SELECT 1 FROM dicomweb.rejected_instance r
        WHERE r.rejection = n.rejection AND NOT r.is_note AND r.deletion IS NULL AND r.orthanc_id IS NOT NULL)"""
_FILES = """SELECT r.sop_instance_uid, r.orthanc_id, r.is_note, EXISTS (
        SELECT 1 FROM dicomweb.forward_rule q JOIN dicomweb.forward_job f
            ON (f.rule_name, f.sop_instance_uid) = (q.name, r.sop_instance_uid) WHERE f.state = 'waiting')
    FROM dicomweb.rejected_instance r WHERE r.deletion = %s AND r.deleted_at IS NULL
    ORDER BY r.is_note, r.sop_instance_uid"""
_EMPTIED = """UPDATE dicomweb.rejected_instance SET deleted_at = now(), orthanc_id = NULL, instance_number = NULL,
        transfer_syntax_uid = NULL, frames = NULL, attributes = NULL, metadata = NULL, pixel_rows = NULL,
        pixel_columns = NULL, bits_allocated = NULL, index_version = NULL, correction = NULL
    WHERE deletion = %s AND sop_instance_uid = ANY(%s)"""
_KEPT = """EXISTS (SELECT 1 FROM dicomweb.rejected_instance r WHERE r.study_instance_uid = {of}.study_instance_uid
    AND {series} r.deleted_at IS NULL AND NOT r.is_note)"""
_EMPTY_SERIES = f"""DELETE FROM dicomweb.series e WHERE e.study_instance_uid = %s AND e.instance_count = 0
    AND NOT {_KEPT.format(of="e", series="r.series_instance_uid = e.series_instance_uid AND")}"""  # noqa: S608  our own texts
_EMPTY_STUDY = f"""DELETE FROM dicomweb.study s WHERE s.study_instance_uid = %s AND s.instance_count = 0
    AND NOT {_KEPT.format(of="s", series="")}"""  # noqa: S608
_CLAIM = """UPDATE dicomweb.deletion SET attempts = attempts + 1, due_at = now() + make_interval(secs => %s)
    WHERE id = (SELECT id FROM dicomweb.deletion WHERE finished_at IS NULL
                AND CASE WHEN %s::bigint IS NULL THEN due_at <= now() ELSE id = %s AND attempts = 0 END
                ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id, study_instance_uid, requested_by, trace_id, attempts"""


@dataclass(frozen=True, slots=True)
class Deletion:
    """An intent that is worked on."""

    id: int
    study: str
    requested_by: str
    trace_id: str
    attempts: int


@dataclass(frozen=True, slots=True)
class FileToDelete:
    """One instance of an intent; `waits`: the file is still to be forwarded, and goes later."""

    sop_instance_uid: str
    orthanc_id: str | None
    is_note: bool
    waits: bool


def intend(connection: Connection, asker: Asker, target: Target, settings: Settings) -> int:
    """Write that everything a URL names will be deleted; from here on it cannot be restored. Returns the intent's id.

    Raises
    ------
    NotFoundError
        Unknown or not permitted: the two cannot be told apart; or deleted already.
    ConflictError
        Something of it is not rejected, it is under a legal hold, has to be kept, or is being deleted.
    """
    found = [one for one in rows.rejected(connection, target, asker.visible) if not one.is_deleted]
    left = rows.counted(connection, target, asker.visible)
    if not found and not left:
        raise NotFoundError(NOT_FOUND)
    rows.study_level(connection, target.study)
    require_not_held(connection, target.study)
    require_terms_ended(connection, target, settings)
    if rows.counted(connection, target, asker.visible):
        raise ConflictError("Only what is rejected can be deleted; reject it first, or in one call with ?reject=CODE")
    found = [one for one in rows.rejected(connection, target, asker.visible) if not one.is_deleted]
    uids = [one.reference.sop_instance_uid for one in found if one.deletion is None]
    if not uids:
        raise ConflictError("It is being deleted already")
    uids += standing(connection, target.study, uids)
    row = connection.execute(
        # Due later: whoever asked works on it first; in the background only if that process is killed.
        "INSERT INTO dicomweb.deletion (study_instance_uid, requested_by, trace_id, due_at)"
        " VALUES (%s, %s, %s, now() + interval '1 minute') RETURNING id",
        (target.study, asker.context.subject, asker.trace_id),
    ).fetchone()
    assert row is not None  # noqa: S101  RETURNING of one row
    connection.execute(_MARK, (row[0], target.study, uids))
    connection.execute(_NOTES_TOO, (row[0], target.study))
    patient = rows.patient_of(connection, target.study)
    rows.audit(connection, "delete", target.study, asker.context, asker.trace_id, patient)
    return int(row[0])


def claim(connection: Connection, lease_s: float, number: int | None = None) -> Deletion | None:
    """Take an intent that is due, or that new one; it is due again when the lease ends, whatever becomes of us."""
    row = connection.execute(_CLAIM, (lease_s, number, number)).fetchone()
    return None if row is None else Deletion(*row)


def files(connection: Connection, deletion: Deletion) -> list[FileToDelete]:
    """Return what an intent still has to delete, the notes last."""
    return [FileToDelete(*row) for row in connection.execute(_FILES, (deletion.id,)).fetchall()]


def emptied(connection: Connection, deletion: Deletion, uids: Sequence[str], orthanc_ids: Sequence[str]) -> bool:
    """Note that the files are gone: of the rows only UIDs and reasons are kept. Returns whether the intent is done."""
    rows.study_level(connection, deletion.study)
    patient = rows.patient_of(connection, deletion.study)
    connection.execute(_EMPTIED, (deletion.id, list(uids)))
    connection.execute("DELETE FROM dicomweb.instance_file WHERE orthanc_id = ANY(%s)", (list(orthanc_ids),))
    left = connection.execute(
        "SELECT count(*) FROM dicomweb.rejected_instance WHERE deletion = %s AND deleted_at IS NULL", (deletion.id,)
    ).fetchone()
    rows.arrived(connection, deletion.study, deletion.trace_id)
    if left is None or left[0]:
        return False
    connection.execute(_EMPTY_SERIES, (deletion.study,))
    connection.execute(_EMPTY_STUDY, (deletion.study,))
    connection.execute(
        "UPDATE dicomweb.deletion SET finished_at = now(), last_fault = NULL WHERE id = %s", (deletion.id,)
    )
    # Who asked for it stands in the event of the intent; this one says that it came to its end.
    who = AccessContext(deletion.requested_by, "dicomweb", ())
    rows.audit(connection, "deleted", deletion.study, who, deletion.trace_id, patient)
    return True


def postpone(connection: Connection, deletion: Deletion, wait_s: float, fault: str) -> None:
    """Try an intent again later."""
    connection.execute(
        "UPDATE dicomweb.deletion SET due_at = now() + make_interval(secs => %s), last_fault = %s WHERE id = %s",
        (wait_s, fault, deletion.id),
    )
