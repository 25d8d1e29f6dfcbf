"""SQL of rejections: what is rejected moves from dicomweb.instance to dicomweb.rejected_instance, and back.

One transaction each, in which the study's row is locked first, so that rejection, restoration, legal holds and arrivals
of one study take turns.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from dicomweb.index.rows import STUDY_COLUMNS, study_row
from dicomweb.rejection.note import Reference
from dicomweb.visibility import Visible
from foramen.kernel.access_context import AccessContext
from foramen.kernel.audit_event import audit_event

INDEXED = (
    "study_instance_uid, series_instance_uid, sop_instance_uid, orthanc_id, instance_number, transfer_syntax_uid,"
    " frames, attributes, metadata, sop_class_uid, pixel_rows, pixel_columns, bits_allocated, index_version,"
    " correction"
)
FIRST_PLACE = 4
"""First placeholder of a `Visible` here: study, series and instance come before it."""
_TARGETS = """SELECT i.series_instance_uid, i.sop_instance_uid, coalesce(i.sop_class_uid, ''){more}
    FROM dicomweb.{table} i JOIN dicomweb.study s USING (study_instance_uid)
    JOIN dicomweb.series e USING (study_instance_uid, series_instance_uid)
    WHERE i.study_instance_uid = $1 AND ($2::text IS NULL OR i.series_instance_uid = $2)
      AND ($3::text IS NULL OR i.sop_instance_uid = $3) AND {visible}
    ORDER BY 1, 2"""
_ARRIVED = """INSERT INTO dicomweb.arrival (study_instance_uid, trace_id) VALUES (%s, %s)
    ON CONFLICT (study_instance_uid) DO UPDATE SET revision = dicomweb.arrival.revision + 1, due_at = now(),
        attempts = 0"""
_MOVE_OUT = f"""WITH moved AS (DELETE FROM dicomweb.instance WHERE study_instance_uid = %s
        AND sop_instance_uid = ANY(%s) RETURNING {INDEXED})
    INSERT INTO dicomweb.rejected_instance ({INDEXED}, rejection, code) SELECT {INDEXED}, %s, %s FROM moved"""  # noqa: S608  our own columns
_MOVE_BACK = f"""INSERT INTO dicomweb.instance ({INDEXED}) SELECT {INDEXED} FROM dicomweb.rejected_instance
    WHERE study_instance_uid = %s AND goes_back"""  # noqa: S608

_ENSURE_STUDY = f"""INSERT INTO dicomweb.study ({", ".join(STUDY_COLUMNS)})
    VALUES ({", ".join("%s::text::tsvector" if name == "name_words" else "%s" for name in STUDY_COLUMNS)})
    ON CONFLICT DO NOTHING"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL names: `series` and `instance` None for all of them."""

    study: str
    series: str | None = None
    instance: str | None = None


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """One instance that is rejected already."""

    reference: Reference
    deletion: int | None
    is_deleted: bool
    is_here: bool


Connection = psycopg.Connection[Any]


def counted(connection: Connection, target: Target, visible: Visible) -> list[Reference]:
    """Instances that count, as far as the caller sees them."""
    query = _TARGETS.format(table="instance", visible=visible.sql, more="")
    rows = psycopg.RawCursor(connection).execute(query, _values(target, visible)).fetchall()
    return [Reference(*row) for row in rows]


def rejected(connection: Connection, target: Target, visible: Visible) -> list[RejectedRow]:
    """Instances that are rejected, the notes apart, as far as the caller sees them."""
    more = ", i.deletion, i.deleted_at IS NOT NULL, i.orthanc_id IS NOT NULL"
    query = _TARGETS.format(table="rejected_instance", visible=f"NOT i.is_note AND {visible.sql}", more=more)
    rows = psycopg.RawCursor(connection).execute(query, _values(target, visible)).fetchall()
    return [RejectedRow(Reference(*row[:3]), *row[3:]) for row in rows]


def own_results(connection: Connection, study: str, *, are_rejected: bool = False) -> list[tuple[Reference, bytes]]:
    """Results of ours in a study that count, or that are rejected and not being deleted, with their metadata."""
    hidden = "(SELECT * FROM dicomweb.rejected_instance WHERE deletion IS NULL AND NOT is_note)"
    table = hidden if are_rejected else "dicomweb.instance"
    rows = connection.execute(
        f"""SELECT i.series_instance_uid, i.sop_instance_uid, coalesce(i.sop_class_uid, ''), i.metadata
            FROM {table} i JOIN dicomweb.series e USING (study_instance_uid, series_instance_uid)
            WHERE i.study_instance_uid = %s AND e.own_output AND i.metadata IS NOT NULL""",  # noqa: S608  our own texts
        (study,),
    ).fetchall()
    return [(Reference(*row[:3]), bytes(row[3])) for row in rows]


def rejected_in(connection: Connection, study: str) -> dict[str, tuple[int, str]]:
    """Rejection and code of each rejected instance of a study, the notes apart."""
    rows = connection.execute(
        "SELECT sop_instance_uid, rejection, code FROM dicomweb.rejected_instance"
        " WHERE study_instance_uid = %s AND NOT is_note",
        (study,),
    ).fetchall()
    return {row[0]: (row[1], row[2]) for row in rows}


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of an instance that was rejected."""

    study: str
    code: str
    is_going: bool
    is_gone: bool


def fates_of(connection: Connection, uids: Sequence[str]) -> dict[str, Fate]:
    """Return the fates of those of some instances that were rejected."""
    rows = connection.execute(
        "SELECT sop_instance_uid, study_instance_uid, code, deletion IS NOT NULL AND deleted_at IS NULL,"
        " deleted_at IS NOT NULL FROM dicomweb.rejected_instance WHERE sop_instance_uid = ANY(%s) AND NOT is_note",
        (list(uids),),
    ).fetchall()
    return {row[0]: Fate(*row[1:]) for row in rows}


def places_of(connection: Connection, uids: Sequence[str]) -> dict[str, tuple[str, str, bool]]:
    """Study, series and whether it is rejected, of each instance that is known in either way."""
    rows = connection.execute(
        """SELECT sop_instance_uid, study_instance_uid, series_instance_uid, false FROM dicomweb.instance
               WHERE sop_instance_uid = ANY(%(uids)s)
           UNION ALL SELECT sop_instance_uid, study_instance_uid, series_instance_uid, true
               FROM dicomweb.rejected_instance WHERE sop_instance_uid = ANY(%(uids)s)""",
        {"uids": list(uids)},
    ).fetchall()
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def study_level(connection: Connection, study: str) -> dict[str, Any] | None:
    """Study level (DICOM JSON model) as the study's files have it, and lock the study's row."""
    row = connection.execute(
        "SELECT attributes || coalesce(as_stored, '{}') FROM dicomweb.study WHERE study_instance_uid = %s FOR UPDATE",
        (study,),
    ).fetchone()
    return None if row is None else dict(row[0])


def ensure_study(connection: Connection, study: str, level: dict[str, Any]) -> None:
    """Add the study's row where there is none, and lock it: what arrives meanwhile waits, and then sees what we wrote.

    Parameters
    ----------
    level : study level (DICOM JSON model) of an instance
    """
    values = [Jsonb(value) if isinstance(value, dict) else value for value in study_row(study, level)]
    connection.execute(_ENSURE_STUDY, values)
    study_level(connection, study)


def note_known(connection: Connection, note_uid: str) -> int | None:
    """Return the rejection of a note that came before."""
    row = connection.execute("SELECT id FROM dicomweb.rejection WHERE note_uid = %s", (note_uid,)).fetchone()
    return None if row is None else int(row[0])


def add(
    connection: Connection,
    study: str,
    code: str,
    reason: str,
    who: AccessContext,
    count: int,
    note: tuple[str, str, bytes],
    sop_class: str,
) -> int:
    """Write a rejection and its note (series, instance, file); the note itself is never shown. Returns its id."""
    row = connection.execute(
        """INSERT INTO dicomweb.rejection (study_instance_uid, code, reason, rejected_by, instances, note_uid, note)
           VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id""",
        (study, code, reason, who.subject, count, note[1], note[2]),
    ).fetchone()
    assert row is not None  # noqa: S101  RETURNING of one row
    connection.execute(
        """INSERT INTO dicomweb.rejected_instance
               (sop_instance_uid, study_instance_uid, series_instance_uid, rejection, code, is_note, sop_class_uid)
           VALUES (%s, %s, %s, %s, %s, true, %s)""",
        (note[1], study, note[0], row[0], code, sop_class),
    )
    return int(row[0])


def move_out(connection: Connection, study: str, uids: Sequence[str], rejection: int, code: str) -> None:
    """Take instances out of the index; the counts follow by its triggers."""
    connection.execute(_MOVE_OUT, (study, list(uids), rejection, code))


def announce(connection: Connection, study: str, references: Sequence[Reference], rejection: int, code: str) -> None:
    """Note instances that are rejected before they come."""
    with connection.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO dicomweb.rejected_instance
                   (sop_instance_uid, study_instance_uid, series_instance_uid, rejection, code, sop_class_uid)
               VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING""",
            [
                (one.sop_instance_uid, study, one.series_instance_uid, rejection, code, one.sop_class_uid)
                for one in references
            ],
        )


def move_back(connection: Connection, study: str, uids: Sequence[str], who: AccessContext) -> None:
    """Bring instances back into the index; what had not come yet is not rejected any more either."""
    connection.execute(
        """UPDATE dicomweb.rejected_instance SET goes_back = orthanc_id IS NOT NULL
           WHERE study_instance_uid = %s AND sop_instance_uid = ANY(%s)""",
        (study, list(uids)),
    )
    connection.execute(_MOVE_BACK, (study,))
    connection.execute(
        "DELETE FROM dicomweb.rejected_instance WHERE study_instance_uid = %s AND sop_instance_uid = ANY(%s)",
        (study, list(uids)),
    )
    connection.execute(
        """UPDATE dicomweb.rejection j SET restored_by = %s, restored_at = now()
           WHERE j.study_instance_uid = %s AND j.restored_at IS NULL AND NOT EXISTS (
               SELECT 1 FROM dicomweb.rejected_instance r WHERE r.rejection = j.id AND NOT r.is_note)""",
        (who.subject, study),
    )


def arrived(connection: Connection, study: str, trace_id: str) -> None:
    """Have the record, and all that is kept of the study, brought into line."""
    connection.execute(_ARRIVED, (study, trace_id))


def audit(
    connection: Connection, interaction: str, study: str, who: AccessContext, trace_id: str, patient: str | None
) -> None:
    """Write the audit event of a change into its transaction."""
    event = audit_event(
        interaction=interaction,
        source="dicomweb",
        status=200,
        recorded=datetime.now(UTC),
        trace_id=trace_id,
        context=who,
        entity=f"urn:oid:{study}",
        patient=patient,
    )
    connection.execute("INSERT INTO dicomweb.audit_outbox (event) VALUES (%s)", (json.dumps(event),))


def patient_of(connection: Connection, study: str) -> str | None:
    """`Patient/id` of a study, if registered."""
    row = connection.execute(
        "SELECT patient_ref FROM dicomweb.study WHERE study_instance_uid = %s", (study,)
    ).fetchone()
    return None if row is None else row[0]


def _values(target: Target, visible: Visible) -> list[Any]:
    return [target.study, target.series, target.instance, *visible.values]
