"""Index stored resources again, a page at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from fhir_server.search.hashing import hash64
from fhir_server.search.index import Extractor
from fhir_server.store.writing import IndexRows, insert_index


async def fill(connection: Any, records: list[Any], extractor: Callable[[str], Extractor]) -> None:
    """Write the index entries of some stored resources and what their row keeps of them."""
    index = IndexRows()
    columns: tuple[list[Any], ...] = ([], [], [], [], [])
    for record in records:
        values = extractor(record["type"]).extract(orjson.loads(record["content"]), record["id"])
        index.add_postings(record["row"], values.postings, values.low, values.high)
        index.add_values(record["row"], values)
        patients = ",".join(str(hash64(patient)) for patient in sorted(values.patients))
        for column, value in zip(
            columns, (record["row"], values.present, values.low, values.high, patients), strict=True
        ):
            column.append(value)
    await connection.execute(
        """UPDATE fhir.resource SET present = n.p, low = n.l, high = n.h,
           patients = coalesce(string_to_array(nullif(n.s, ''), ',')::bigint[], '{}')
           FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[]) AS n(r, p, l, h, s)
           WHERE resource.row = n.r""",
        *columns,
    )
    await insert_index(connection, index)
