"""What study and series say of themselves, made anew from all of their instances after some of them changed.

The level of a study is what most of its files say; among equals the first. A series' level is that of its first image.
Patient data of the record that was laid over (`demographics`) is taken off first.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from dicomweb.index.levels import STUDY_TAGS
from dicomweb.index.rows import STUDY_COLUMNS, match_keys, study_row
from dicomweb.instance_header import is_own_output, levels_of, tag_of, text_values
from dicomweb.reconciliation.demographics import as_stored

_INSTANCES = """SELECT series_instance_uid, metadata FROM dicomweb.instance WHERE study_instance_uid = $1
    ORDER BY series_instance_uid, instance_number, sop_instance_uid"""
_SET_SERIES = """UPDATE dicomweb.series SET attributes = $3, keys = $4, modality = $5, own_output = $6
    WHERE study_instance_uid = $1 AND series_instance_uid = $2 AND attributes <> $3"""
_NAMES = STUDY_COLUMNS[1:]
_PLACES = [f"${n}::text::tsvector" if c == "name_words" else f"${n}" for n, c in enumerate(_NAMES, start=2)]
_SET_STUDY = f"""UPDATE dicomweb.study SET ({", ".join(_NAMES)}) = ROW({", ".join(_PLACES)}), as_stored = NULL,
        correction = NULL, patient_conflict = ${len(_NAMES) + 2}
    WHERE study_instance_uid = $1"""  # noqa: S608  our own columns
# Whose images they were does not count any more; but those of a closed record stay closed (ADR 0040).
_DISOWN = """UPDATE dicomweb.study s SET patient_ref = NULL, institution = NULL WHERE study_instance_uid = $1
    AND NOT EXISTS (SELECT 1 FROM dicomweb.closed_record c WHERE c.patient_ref = s.patient_ref)
    AND NOT EXISTS (SELECT 1 FROM dicomweb.restricted_record r WHERE r.patient_ref = s.patient_ref)"""
_BEFORE = "SELECT attributes || coalesce(as_stored, '{}') FROM dicomweb.study WHERE study_instance_uid = $1"
_BATCH = 100
Identity = tuple[str, str]


@dataclass(slots=True)
class Levels:
    """What the instances of a study say: their study levels with how many say so, and the level of each series."""

    studies: Counter[bytes] = field(default_factory=Counter)
    series: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, rows: Sequence[tuple[str, bytes]]) -> None:
        """Take in instances, in order."""
        for series, packed in rows:
            model = as_stored(orjson.loads(zlib.decompress(packed)))
            study = {tag: value for tag, value in model.items() if tag in STUDY_TAGS}
            self.studies[orjson.dumps(study, option=orjson.OPT_SORT_KEYS)] += 1
            if series not in self.series:
                self.series[series] = levels_of(model)["series"]

    @property
    def study(self) -> dict[str, Any]:
        """The study level that most instances name."""
        return levels_of(orjson.loads(self.studies.most_common(1)[0][0]))["study"]

    @property
    def identities(self) -> list[Identity]:
        """Every Patient ID with its issuer, the one named most first."""
        found = (identity_of(orjson.loads(text)) for text, _ in self.studies.most_common())
        return list(dict.fromkeys(found))


def identity_of(study: dict[str, Any]) -> Identity:
    """Patient ID and its issuer; empty where the files do not say."""
    values = [text_values(study.get(tag_of(keyword), {})) for keyword in ("PatientID", "IssuerOfPatientID")]
    return (values[0][0].strip() if values[0] else "", values[1][0].strip() if values[1] else "")


def contradict(identities: Sequence[Identity]) -> bool:
    """Whether files name different patients; an issuer that is absent contradicts none."""
    issuers = {issuer for _, issuer in identities if issuer}
    return len({number for number, _ in identities}) > 1 or len(issuers) > 1


async def read_levels(connection: Any, study: str) -> Levels:
    """Read all instances of a study, a hundred at a time; inside a transaction."""
    found, batch = Levels(), []
    async for row in connection.cursor(_INSTANCES, study, prefetch=_BATCH):
        batch.append((row[0], row[1]))
        if len(batch) == _BATCH:
            await asyncio.to_thread(found.add, batch)
            batch = []
    await asyncio.to_thread(found.add, batch)
    return found


async def make_anew(connection: Any, study: str) -> tuple[list[Identity], bool]:
    """Make the rows of study and series anew, in the caller's transaction.

    Returns
    -------
    The identities its files name (none: no instance is left, and nothing is changed), and whether the study's own
    is another than before: then it is nobody's until the record was asked.
    """
    before = await connection.fetchval(f"{_BEFORE} FOR UPDATE", study)
    found = await read_levels(connection, study)
    if before is None or not found.studies:
        return [], False
    level, identities = found.study, found.identities
    await connection.execute(_SET_STUDY, *study_row(study, level), contradict(identities))
    for uid, one in found.series.items():
        modality = text_values(one.get(tag_of("Modality"), {}))
        maker = text_values(one.get(tag_of("Manufacturer"), {}))
        own = is_own_output(modality[0] if modality else "", maker[0] if maker else "")
        await connection.execute(_SET_SERIES, study, uid, one, match_keys(one), modality[0] if modality else None, own)
    changed = identity_of(before) != identity_of(level)
    if changed:
        await connection.execute(_DISOWN, study)
    return identities, changed
