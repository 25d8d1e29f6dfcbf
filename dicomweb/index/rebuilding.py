"""Rows of an older version of the index, made anew from the metadata they keep: no pixel file is read."""

from __future__ import annotations

import zlib
from typing import Any

import orjson

from dicomweb.database import Database
from dicomweb.index.rows import INDEX_VERSION, STUDY_COLUMNS, match_keys, pixel_columns, study_row
from dicomweb.instance_header import levels_of
from foramen.kernel.log import get_log

_LOCK = 0x666F72616D656E03  # advisory lock: one process rebuilds, the others wait for it
_NEXT = """SELECT study_instance_uid FROM dicomweb.instance WHERE index_version < $1
           AND study_instance_uid > $2 ORDER BY 1 LIMIT 1"""
_OLD = """SELECT series_instance_uid, sop_instance_uid, metadata FROM dicomweb.instance
          WHERE study_instance_uid = $1 AND index_version < $2 ORDER BY series_instance_uid, instance_number"""
_SET_INSTANCE = """UPDATE dicomweb.instance i SET attributes = v.attributes, sop_class_uid = v.class,
        pixel_rows = v.rows, pixel_columns = v.columns, bits_allocated = v.bits, index_version = $8
    FROM unnest($2::text[], $3::jsonb[], $4::text[], $5::integer[], $6::integer[], $7::integer[])
        AS v(uid, attributes, class, rows, columns, bits)
    WHERE i.study_instance_uid = $1 AND i.sop_instance_uid = v.uid"""
_SET_SERIES = """UPDATE dicomweb.series SET attributes = $3, keys = $4
    WHERE study_instance_uid = $1 AND series_instance_uid = $2"""
_SET_STUDY = "UPDATE dicomweb.study SET ({columns}) = ROW({values}) WHERE study_instance_uid = $1"


async def rebuild(database: Database) -> int:
    """Bring all rows up to `INDEX_VERSION`; returns the number of studies. Does nothing when they are.

    Raises
    ------
    UpstreamError
        The database does not answer; what was done stays done.
    """
    count, after = 0, ""
    async with database.connection() as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        try:
            while (study := await connection.fetchval(_NEXT, INDEX_VERSION, after)) is not None:
                async with connection.transaction():
                    await _rebuild_study(connection, study)
                count, after = count + 1, study
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)
    if count:
        get_log().info("study index rebuilt", count=count)
    return count


async def _rebuild_study(connection: Any, study: str) -> None:
    changed: list[tuple[Any, ...]] = []
    series: dict[str, dict[str, Any]] = {}
    levels: dict[Any, dict[str, Any]] = {}
    for row in await connection.fetch(_OLD, study, INDEX_VERSION):
        levels = levels_of(orjson.loads(zlib.decompress(row["metadata"])))
        instance = levels["instance"]
        sop_class = (instance.get("00080016", {}).get("Value") or [None])[0]
        changed.append((row["sop_instance_uid"], instance, sop_class, *pixel_columns(instance)))
        series.setdefault(row["series_instance_uid"], levels["series"])
    columns = (list(column) for column in zip(*changed, strict=True))
    await connection.execute(_SET_INSTANCE, study, *columns, INDEX_VERSION)
    for uid, level in series.items():
        await connection.execute(_SET_SERIES, study, uid, level, match_keys(level))
    # What the study said first stays: only what was not kept before is added.
    kept = await connection.fetchval("SELECT attributes FROM dicomweb.study WHERE study_instance_uid = $1", study)
    names = STUDY_COLUMNS[1:]
    places = [f"${n}::text::tsvector" if c == "name_words" else f"${n}" for n, c in enumerate(names, start=2)]
    query = _SET_STUDY.format(columns=", ".join(names), values=", ".join(places))
    await connection.execute(query, *study_row(study, levels["study"] | kept))
