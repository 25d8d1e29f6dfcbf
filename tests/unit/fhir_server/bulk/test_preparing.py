"""What an import prepares without the database: content, order, what stands apart, sizes of batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from fhir_server.bulk.preparing import Prepared, Preparer, Source
from fhir_server.bulk.source import BEGINNING, LineLimits, batches
from fhir_server.model.resource import splice
from fhir_server.settings import FhirSettings
from fhir_server.store.bulk_writing import MOMENT
from foramen.kernel.access_context import AccessContext, parse_scopes

PATIENT = {"resourceType": "Patient", "gender": "female", "id": "p1"}
SCOPE = "system/Patient.c"


def prepared(folder: Path, *rows: dict[str, Any] | bytes) -> Prepared:
    path = folder / "input.ndjson"
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else orjson.dumps(row) for row in rows))
    context = AccessContext("tester", "client", parse_scopes(SCOPE), SCOPE)
    preparer = Preparer(
        Source(path, BEGINNING, ""), LineLimits(100, 10**6, 10**5, 10**7), context=context, trace_id="0" * 32,
        own_url="https://foramen.example/fhir", limits=FhirSettings(), full=True,
    )  # fmt: skip
    found = preparer.next(range(1000, 1100))
    assert found is not None
    assert preparer.next(range(1000, 1100)) is None
    return found


@pytest.mark.parametrize(
    "text",
    [
        b'{"resourceType":"Patient","gender":"female","id":"p1"}',
        b'{"resourceType":"Patient","id":"p1","gender":"female"}',
        b'{"resourceType":"Patient","gender":"female"}',
        b'{"resourceType":"Patient","gender":"female","meta":{"source":"urn:x"},"id":"p1"}',
        b'{"gender":"female","id":"p1","resourceType":"Patient"}',
        b'{"resourceType":"Patient","gender":"female","id":"p\\u0031"}',
        b'{"resourceType":"Patient","name":[{"text":"a\\\\b"}],"id":"p1"}',
    ],
)
def test_the_content_is_that_of_any_write_but_for_its_moment(tmp_path: Path, text: bytes) -> None:
    found = prepared(tmp_path, text)
    (good,) = found.plain
    assert found.rows is not None
    (row,) = found.rows.resources
    expected = splice(text, good.name[1], 1, MOMENT)
    content = row[row.index(b'{"resourceType"') :]
    assert list(orjson.loads(content.replace(MOMENT.encode(), b"x" * 24))) == list(
        orjson.loads(expected.replace(MOMENT.encode(), b"x" * 24))
    )
    assert content.count(MOMENT.encode()) == 1
    assert sorted(content) == sorted(expected)


def test_what_needs_more_than_to_be_new_stands_apart_in_order(tmp_path: Path) -> None:
    found = prepared(
        tmp_path,
        PATIENT,
        {**PATIENT, "gender": "male"},
        {**PATIENT, "id": "p2", "meta": {"profile": ["https://foramen.example/p"]}},
        {**PATIENT, "id": "p3", "meta": {"tag": [{"code": "x"}]}},
        {"resourceType": "Group", "id": "g1", "type": "person", "actual": True},
        {**PATIENT, "id": "p4", "meta": {"source": "urn:x"}},
        b"{",
    )
    assert [line.number for line in found.plain] == [1, 6]
    assert [line.number for line in found.apart] == [2, 3, 4, 5]
    assert [line.number for line in found.refused] == [7]
    assert len(found.keys) == 2
    assert found.counts == {"Patient": 2}
    assert found.numbers_left == list(range(1002, 1100))


def test_batches_grow_and_shrink(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"0123456789\n" * 30_000)
    sizes = [len(batch.lines) for batch in batches(path, BEGINNING, LineLimits(4000, 10**9, 100, 10**9))]
    assert sum(sizes) == 30_000
    assert sizes[0] == 500
    assert max(sizes) == 4000
    assert sizes[-2] <= 501
    top = sizes.index(4000)
    assert sizes[: top + 1] == sorted(sizes[: top + 1])
    assert sizes[top:] == sorted(sizes[top:], reverse=True)
