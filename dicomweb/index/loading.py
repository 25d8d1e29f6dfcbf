"""Many rows of the study index at once, by COPY: for benchmarks of a large index, and for a future import of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import psycopg

from dicomweb.index.rows import INSTANCE_COLUMNS, SERIES_COLUMNS, STUDY_COLUMNS, instance_row, series_row, study_row
from dicomweb.instance_header import InstanceHeader

_QUIET = """UPDATE dicomweb.series SET stale_since = NULL
    WHERE study_instance_uid = ANY(%s) AND stale_since IS NOT NULL"""


def load(connection: psycopg.Connection[Any], headers: Sequence[InstanceHeader], *, prebuild: bool = True) -> None:
    """Add instances that the index does not hold yet, in one transaction; the counts are right afterwards.

    Parameters
    ----------
    headers : of whole studies; the first of a study and of a series say what its level says
    prebuild : whether the metadata of their series is built in the background; where not, on the first request

    Raises
    ------
    psycopg.errors.UniqueViolation
        The index holds one of them.
    """
    studies = {header.study_instance_uid: header for header in reversed(headers)}
    series = {(header.study_instance_uid, header.series_instance_uid): header for header in reversed(headers)}
    with connection.transaction(), connection.cursor() as cursor:
        _copy(cursor, "study", STUDY_COLUMNS, [study_row(uid, header.study) for uid, header in studies.items()])
        _copy(cursor, "series", SERIES_COLUMNS, [series_row(header) for header in series.values()])
        rows = [instance_row(header, f"{header.sop_instance_uid[-40:]:0>44}") for header in headers]
        _copy(cursor, "instance", INSTANCE_COLUMNS, rows)
        if not prebuild:
            cursor.execute(_QUIET, (list(studies),))


def _copy(cursor: psycopg.Cursor[Any], table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    statement = f"COPY dicomweb.{table} ({', '.join(columns)}) FROM STDIN"
    with cursor.copy(statement.encode()) as copy:
        for row in rows:
            copy.write_row([orjson.dumps(value).decode() if isinstance(value, dict) else value for value in row])
