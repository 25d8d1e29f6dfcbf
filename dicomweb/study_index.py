"""Stage 3: the study index. Which instances exist, what they say of themselves, and whose they are; own tables only."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from dicomweb.database import Database
from dicomweb.index.rows import INSTANCE_COLUMNS, SERIES_COLUMNS, STUDY_COLUMNS, instance_row, series_row, study_row
from dicomweb.instance_header import InstanceHeader, tag_of, text_values
from dicomweb.visibility import Visibility, Visible
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import NotFoundError

_UPSERT_STUDY = f"""
    INSERT INTO dicomweb.study ({", ".join(STUDY_COLUMNS)})
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::tsvector, $10, $11, $12, $13, $14, $15)
    ON CONFLICT (study_instance_uid) DO UPDATE SET patient_conflict = dicomweb.study.patient_conflict
        OR (dicomweb.study.attributes || coalesce(dicomweb.study.as_stored, '{{}}'))->'00100020'->'Value'
            IS DISTINCT FROM EXCLUDED.attributes->'00100020'->'Value'
        OR coalesce((dicomweb.study.attributes || coalesce(dicomweb.study.as_stored, '{{}}'))->'00100021'->'Value'
            <> EXCLUDED.attributes->'00100021'->'Value', false)
"""  # noqa: S608  our own columns
_UPSERT_SERIES = f"""
    INSERT INTO dicomweb.series ({", ".join(SERIES_COLUMNS)}) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING
"""  # noqa: S608
_INSERT_INSTANCES = f"""
    INSERT INTO dicomweb.instance ({", ".join(INSTANCE_COLUMNS)})
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::text[], $7::integer[],
                         $8::jsonb[], $9::bytea[], $10::text[], $11::integer[], $12::integer[], $13::integer[],
                         $14::smallint[])
    ON CONFLICT DO NOTHING
"""  # noqa: S608
ARRIVED = """
    INSERT INTO dicomweb.arrival (study_instance_uid, trace_id, due_at)
    VALUES ($1, $2, now() + make_interval(secs => $3))
    ON CONFLICT (study_instance_uid) DO UPDATE SET
        revision = dicomweb.arrival.revision + 1, due_at = EXCLUDED.due_at, attempts = 0
"""


@dataclass(frozen=True, slots=True)
class IndexedInstance:
    """One instance as retrieval needs it."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    orthanc_id: str
    transfer_syntax_uid: str
    frames: int
    patient_ref: str | None = None
    """`Patient/id` of its study, if registered."""


@dataclass(frozen=True, slots=True)
class IndexedSeries:
    """One series as registration needs it."""

    series_instance_uid: str
    own_output: bool
    attributes: dict[str, Any]
    sop_instance_uids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IndexedStudy:
    """One study as registration needs it."""

    study_instance_uid: str
    patient_ref: str | None
    input_hash: str | None
    state: str
    patient_conflict: bool
    attributes: dict[str, Any]
    series: tuple[IndexedSeries, ...]
    as_stored: dict[str, Any] = field(default_factory=dict)
    correction: str | None = None
    recorded: str | None = None


class StudyIndex:
    """Reads and writes of schema `dicomweb`."""

    def __init__(self, database: Database, visibility: Visibility) -> None:
        self._database, self._visibility = database, visibility

    async def visible(self, context: AccessContext, action: str | None, *, start: int = 1) -> Visible:
        """Return the condition under which a client is answered with studies, series or instances (`Visibility`)."""
        return await self._visibility.visible(context, action, start=start)

    async def add(
        self, instances: Iterable[tuple[InstanceHeader, str]], *, trace_id: str | None = None, due_in_s: float = 0.0
    ) -> None:
        """Index instances, given with their Orthanc ids; with a trace id their studies become due for registration."""
        rows = list(instances)
        async with self._database.connection() as connection, connection.transaction():
            studies = await add_rows(connection, rows)
            if trace_id is not None:
                for uid in sorted(studies):
                    await connection.execute(ARRIVED, uid, trace_id, due_in_s)

    async def arrived(self, study_instance_uid: str, trace_id: str, *, due_in_s: float = 0.0) -> None:
        """Record durably that a study has to be registered (again)."""
        async with self._database.connection() as connection:
            await connection.execute(ARRIVED, study_instance_uid, trace_id, due_in_s)

    async def known_instances(self, study_instance_uid: str) -> set[str]:
        """SOP Instance UIDs already indexed of a study, or rejected."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """SELECT sop_instance_uid FROM dicomweb.instance WHERE study_instance_uid = $1
                   UNION ALL SELECT sop_instance_uid FROM dicomweb.withdrawn_instance WHERE study_instance_uid = $1
                       AND orthanc_id IS NOT NULL""",
                study_instance_uid,
            )
        return {row[0] for row in rows}

    async def known_studies(self, study_instance_uids: Sequence[str]) -> set[str]:
        """Which of these studies the index holds or waits to register."""
        query = """SELECT study_instance_uid FROM dicomweb.study WHERE study_instance_uid = ANY($1::text[])
                   UNION SELECT study_instance_uid FROM dicomweb.arrival WHERE study_instance_uid = ANY($1::text[])"""
        async with self._database.connection() as connection:
            return {row[0] for row in await connection.fetch(query, list(study_instance_uids))}

    async def study(self, study_instance_uid: str) -> IndexedStudy | None:
        """Return one study with its series and their instances."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT * FROM dicomweb.study WHERE study_instance_uid = $1", study_instance_uid
            )
            if row is None:
                return None
            series = await connection.fetch(
                """SELECT s.series_instance_uid, s.own_output, s.attributes,
                          array_agg(i.sop_instance_uid ORDER BY i.sop_instance_uid COLLATE "C") AS sop_instance_uids
                   FROM dicomweb.series s JOIN dicomweb.instance i USING (study_instance_uid, series_instance_uid)
                   WHERE s.study_instance_uid = $1
                   GROUP BY 1, 2, 3 ORDER BY 1""",
                study_instance_uid,
            )
        return IndexedStudy(
            row["study_instance_uid"],
            row["patient_ref"],
            row["input_hash"],
            row["state"],
            row["patient_conflict"],
            row["attributes"],
            tuple(IndexedSeries(item[0], item[1], item[2], tuple(item[3])) for item in series),
            row["as_stored"] or {},
            row["correction"],
            row["recorded"],
        )

    async def mark(
        self, study_instance_uid: str, *, patient_ref: str | None, institution: str | None, state: str, input_hash: str
    ) -> None:
        """Record what registration found out; whose a study was is not forgotten when nobody is found any more.

        Else the study of somebody who was erased, or whose record is closed, would be nobody's, and open. Only one
        whose instances name two patients, and whose record is open, is shown as neither's.
        """
        async with self._database.connection() as connection:
            await connection.execute(
                """UPDATE dicomweb.study s SET
                          patient_ref = coalesce($2::text, (SELECT s.patient_ref WHERE NOT s.patient_conflict
                              OR EXISTS (SELECT 1 FROM dicomweb.closed_record c WHERE c.patient_ref = s.patient_ref)
                              OR EXISTS (SELECT 1 FROM dicomweb.restricted_record r
                                         WHERE r.patient_ref = s.patient_ref))),
                          institution = $3, state = $4, input_hash = $5,
                          updated_at = now()
                   WHERE study_instance_uid = $1""",
                *(study_instance_uid, patient_ref, institution, state, input_hash),
            )

    async def patient_of(self, study_instance_uid: str) -> str | None:
        """`Patient/id` of a study, if registered."""
        async with self._database.connection() as connection:
            found: str | None = await connection.fetchval(
                "SELECT patient_ref FROM dicomweb.study WHERE study_instance_uid = $1", study_instance_uid
            )
        return found

    async def require_study(self, context: AccessContext, study_instance_uid: str) -> None:
        """Raise `NotFoundError` unless the index holds the study and it is of the token's institution."""
        visible = await self.visible(context, None, start=2)
        async with self._database.connection() as connection:
            query = f"SELECT 1 FROM dicomweb.study s WHERE study_instance_uid = $1 AND {visible.study_sql}"  # noqa: S608  our own clauses
            if await connection.fetchval(query, study_instance_uid, *visible.values) is None:
                raise NotFoundError("No such study, series or instance")

    async def instances(
        self,
        context: AccessContext,
        study_instance_uid: str,
        series_instance_uid: str | None = None,
        sop_instance_uid: str | None = None,
    ) -> list[IndexedInstance]:
        """Instances at or below what a URL names, as far as the token may retrieve them; in series and instance order.

        Raises
        ------
        NotFoundError
            Unknown or not permitted: the two cannot be told apart.
        """
        rows, _ = await self._retrieve("", context, study_instance_uid, series_instance_uid, sop_instance_uid)
        return [IndexedInstance(*row) for row in rows]

    async def decided(
        self, context: AccessContext, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str | None
    ) -> tuple[list[IndexedInstance], float]:
        """Return the same as `instances`, and when the oldest of what decided was read (`time.monotonic`)."""
        names = (study_instance_uid, series_instance_uid, sop_instance_uid)
        rows, as_of = await self._retrieve("", context, *names)
        return [IndexedInstance(*row) for row in rows], as_of

    async def metadata(
        self,
        context: AccessContext,
        study_instance_uid: str,
        series_instance_uid: str | None = None,
        sop_instance_uid: str | None = None,
    ) -> list[bytes]:
        """Compressed DICOM JSON of the same instances as `instances`."""
        names = (study_instance_uid, series_instance_uid, sop_instance_uid)
        rows, _ = await self._retrieve(", i.metadata", context, *names)
        return [row[7] for row in rows]

    async def _retrieve(
        self, column: str, context: AccessContext, study: str, series: str | None, instance: str | None
    ) -> tuple[list[asyncpg.Record], float]:
        visible = await self.visible(context, "r", start=4)
        as_of = min(visible.as_of, time.monotonic())
        query = f"""
            SELECT i.study_instance_uid, i.series_instance_uid, i.sop_instance_uid, i.orthanc_id, i.transfer_syntax_uid,
                   i.frames, s.patient_ref {column}
            FROM {visible.shelf.instance} i JOIN {visible.shelf.study} s USING (study_instance_uid)
            JOIN {visible.shelf.series} e USING (study_instance_uid, series_instance_uid)
            WHERE i.study_instance_uid = $1 AND ($2::text IS NULL OR i.series_instance_uid = $2)
              AND ($3::text IS NULL OR i.sop_instance_uid = $3) AND {visible.sql}
            ORDER BY i.series_instance_uid, i.instance_number NULLS LAST, i.sop_instance_uid
        """  # noqa: S608  `column` is one of two literals above
        async with self._database.connection() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(query, study, series, instance, *visible.values)
        if not rows:
            raise NotFoundError("No such study, series or instance")
        return rows, as_of


async def add_rows(connection: Any, rows: Sequence[tuple[InstanceHeader, str]]) -> set[str]:
    """Index instances inside the caller's transaction; returns the UIDs of their studies."""
    studies = {(header.study_instance_uid, *_patient(header.study)): header for header, _ in rows}
    # A fixed order of locks: two deliveries of the same studies wait for each other instead of deadlocking.
    for (uid, *_), header in sorted(studies.items(), key=lambda item: item[0]):
        await connection.execute(_UPSERT_STUDY, *study_row(uid, header.study))
    series = {(header.study_instance_uid, header.series_instance_uid): header for header, _ in rows}
    for _, header in sorted(series.items(), key=lambda item: item[0]):
        await connection.execute(_UPSERT_SERIES, *series_row(header))
    # In one statement: the triggers that keep the counts run once.
    found = [instance_row(*row) for row in sorted(rows, key=lambda row: row[0].sop_instance_uid)]
    if found:
        await connection.execute(_INSERT_INSTANCES, *(list(column) for column in zip(*found, strict=True)))
    return {uid for uid, *_ in studies}


def same_patient(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two study levels name the same patient; an issuer that is absent contradicts none."""
    (one_id, one_issuer), (other_id, other_issuer) = _patient(one), _patient(other)
    return one_id == other_id and (one_issuer == other_issuer or not one_issuer or not other_issuer)


def _patient(study: dict[str, Any]) -> tuple[str, str]:
    values = [text_values(study.get(tag_of(keyword), {})) for keyword in ("PatientID", "IssuerOfPatientID")]
    return (values[0][0] if values[0] else "", values[1][0] if values[1] else "")
