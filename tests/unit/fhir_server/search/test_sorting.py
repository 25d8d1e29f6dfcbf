"""Where sort keys come from, and pages split into ranges that cover everything once."""

from __future__ import annotations

import pytest

from fhir_server.search.conditions import SortKind
from fhir_server.search.parameters import type_parameters
from fhir_server.search.result_parameters import partition_bounds
from fhir_server.search.sorting import json_paths, sort_key, sort_keys
from fhir_server.search.strings import hierarchy_condition
from foramen.kernel.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("resource_type", "code", "paths"),
    [
        ("Patient", "gender", ('$."gender"',)),
        ("Patient", "email", ('$."telecom" ? (@.system == "email").value',)),
        ("Observation", "code", ('$."code".coding.code',)),
        ("Observation", "subject", ('$."subject".reference',)),
        ("Patient", "deceased", ('$."deceasedBoolean"', '$."deceasedDateTime"')),
    ],
)
def test_paths_into_the_stored_bytes(resource_type: str, code: str, paths: tuple[str, ...]) -> None:
    assert json_paths(type_parameters(resource_type).parameters[code]) == paths


def test_kinds_of_keys() -> None:
    kinds = [key.kind for key in sort_keys("Observation", "-date,code,value-quantity,_id,_lastUpdated,value-string", 8)]
    assert kinds == [
        SortKind.MAIN_DATE,
        SortKind.CONTENT,
        SortKind.NUMBER,
        SortKind.ID,
        SortKind.LAST_UPDATED,
        SortKind.STRING,
    ]
    assert sort_key("Observation", "-code").descending
    with pytest.raises(InvalidRequestError):
        sort_keys("Observation", "_id,_id", 1)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
def test_partitions_are_disjoint_and_complete(count: int) -> None:
    covered = [bucket for low, high in partition_bounds(count) for bucket in range(low, high + 1)]
    assert covered == list(range(1024))


def test_a_hierarchy_of_urls_only() -> None:
    with pytest.raises(InvalidRequestError):
        hierarchy_condition(type_parameters("Library").parameters["url"], "below", ["urn:oid:1.2"])
