"""Studies with a security label, for those who hide the pixels of what a Consent hides."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

_LABELLED = """
SELECT r.content, array_agg(DISTINCT p.hash) AS patients, array_agg(DISTINCT l.hash) AS labels
FROM fhir.posting p JOIN fhir.posting l ON l.row = p.row JOIN fhir.resource r ON r.row = p.row
WHERE p.hash = ANY($1) AND l.hash = ANY($2) AND r.content IS NOT NULL GROUP BY r.row, r.content
"""


class Labelled(NamedTuple):
    """One ImagingStudy, and which of the postings asked for it has."""

    data: dict[str, Any]
    patients: frozenset[int]
    labels: frozenset[int]


async def labelled_studies(connection: Any, patients: list[int], labels: list[int]) -> list[Labelled]:
    """Return the ImagingStudies in these records that have one of these labels.

    Parameters
    ----------
    patients, labels : postings of ImagingStudy
    """
    records = await connection.fetch(_LABELLED, patients, labels)
    return [
        Labelled(orjson.loads(record["content"]), frozenset(record["patients"]), frozenset(record["labels"]))
        for record in records
    ]
