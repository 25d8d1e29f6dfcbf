"""Lays the record's patient data over the rows of one study, or takes it off again: once, when one of both changed.

Reads (searches, metadata, C-FIND) are far more than corrections, so the rows themselves say what is shown; what the
files say lies in the Original Attributes Sequence of each, and `as_stored` of the study (ADR 0041).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from dicomweb.index.rows import STUDY_COLUMNS, study_row
from dicomweb.reconciliation.demographics import as_stored, hash_of, laid_over

_STUDY = "SELECT attributes, as_stored, correction FROM dicomweb.study WHERE study_instance_uid = $1 FOR UPDATE"
_NAMES = STUDY_COLUMNS[1:]
_PLACES = [f"${n}::text::tsvector" if c == "name_words" else f"${n}" for n, c in enumerate(_NAMES, start=2)]
_SET_STUDY = f"""UPDATE dicomweb.study SET ({", ".join(_NAMES)}) = ROW({", ".join(_PLACES)}),
        as_stored = ${len(_NAMES) + 2}, correction = ${len(_NAMES) + 3} WHERE study_instance_uid = $1"""  # noqa: S608
_BEHIND = """SELECT sop_instance_uid, metadata FROM dicomweb.instance
    WHERE study_instance_uid = $1 AND correction IS DISTINCT FROM $2 AND sop_instance_uid > $3
    ORDER BY sop_instance_uid LIMIT $4"""
_SET_INSTANCES = """UPDATE dicomweb.instance i SET metadata = v.metadata, correction = $4
    FROM unnest($2::text[], $3::bytea[]) AS v(uid, metadata)
    WHERE i.study_instance_uid = $1 AND i.sop_instance_uid = v.uid"""
_BATCH = 200


async def lay_over(connection: Any, study: str, corrected: dict[str, Any], at: datetime) -> int:
    """Make the rows of a study show corrections, in the caller's transaction; returns how many instances changed.

    Parameters
    ----------
    corrected : DICOM JSON of `demographics.corrections`; empty: what the files say is shown
    """
    row = await connection.fetchrow(_STUDY, study)
    if row is None:
        return 0
    wanted = hash_of(corrected)
    if row["correction"] != wanted:
        stored = row["attributes"] | (row["as_stored"] or {})
        before = {tag: stored.get(tag, {"vr": one["vr"]}) for tag, one in corrected.items()} or None
        await connection.execute(_SET_STUDY, *study_row(study, stored | corrected), before, wanted)
    count, after = 0, ""
    while batch := await connection.fetch(_BEHIND, study, wanted, after, _BATCH):
        made = await asyncio.to_thread(_made, [(one[0], one[1]) for one in batch], corrected, at)
        uids, metadata = (list(column) for column in zip(*made, strict=True))
        await connection.execute(_SET_INSTANCES, study, uids, metadata, wanted)
        count, after = count + len(batch), batch[-1][0]
    return count


def _made(batch: Sequence[tuple[str, bytes]], corrected: dict[str, Any], at: datetime) -> list[tuple[str, bytes]]:
    made = []
    for uid, packed in batch:
        model = orjson.loads(zlib.decompress(packed))
        shown = laid_over(model, corrected, at) if corrected else as_stored(model)
        text = orjson.dumps(shown, option=orjson.OPT_SORT_KEYS)
        made.append((uid, zlib.compress(text, 1)))
    return made
