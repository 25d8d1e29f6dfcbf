"""Every search parameter of R4, on every type it is defined for, with a value of its kind and each of its modifiers."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest

from fhir_server.access.policy import Access
from fhir_server.search.modifiers import MODIFIERS
from fhir_server.search.parameters import resource_types, type_parameters
from fhir_server.search.parse import SearchParser
from fhir_server.settings import FhirSettings
from fhir_server.store.ordering import page_statement
from fhir_server.store.searching import NEWEST_FIRST
from foramen.kernel.access_context import AccessContext, parse_scopes
from foramen.kernel.errors import InvalidRequestError
from tests.conftest import TEST_DATA
from tests.contract.fhir.api import Api

pytestmark = pytest.mark.fhir_definitions

VALUES = {
    "token": "urn:system|code",
    "string": "text",
    "reference": "x1",
    "date": "ge2026-01",
    "number": "0.5",
    "quantity": "ge5|http://unitsofmeasure.org|mm",
    "uri": "http://e.org/x",
    "special": "48.1|11.5|10|km",
}
OF_MODIFIER = {
    "missing": "true",
    "of-type": "urn:v2|MR|1",
    "in": "http://e.org/vs",
    "not-in": "http://e.org/vs",
    "identifier": "urn:x|1",
}
OF_CODE = {"_text": "word", "_content": "word", "_filter": "_id eq x", "_lastUpdated": "ge2026", "age": "ge40"}
COMPUTED = {"near", "age"}
"""Answered from what others index, without modifiers."""
NOT_OFFERED = {"_query"}
EXAMPLES = {"example", "example-extension"}
"""Two of the 1,400 are examples of a definition: `_id` once more, and a parameter over an example extension."""


@lru_cache(maxsize=1)
def definitions() -> list[dict[str, Any]]:
    with tarfile.open(TEST_DATA.parent / "fhir" / "core-r4.tgz") as archive:
        members = [m for m in archive if m.name.rpartition("/")[2].startswith("SearchParameter-")]
        found = [archive.extractfile(member) for member in members]
        return [json.load(file) for file in found if file is not None]


def asked() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each definition on each of its types; what every type has, on three of them."""
    for item in definitions():
        bases = item.get("base", [])
        if item["id"] in EXAMPLES or item["code"] in NOT_OFFERED:
            continue
        if bases in (["Resource"], ["DomainResource"]):
            bases = ["Observation", "Patient", "ValueSet"]
        for base in bases:
            if base in resource_types():
                yield base, item


def value_of(item: dict[str, Any], resource_type: str) -> str:
    if item["code"] in OF_CODE:
        return OF_CODE[item["code"]]
    if item["type"] != "composite":
        parameter = type_parameters(resource_type).parameters.get(item["code"])
        if parameter is not None and any(path.endswith("#true") for path in parameter.paths):
            return "true"
        return VALUES[item["type"]]
    kinds = type_parameters(resource_type).parameters[item["code"]].part_kinds
    return "$".join(VALUES[kind] if kind != "reference" else "Patient/x1" for kind in kinds)


@lru_cache(maxsize=1)
def settings() -> FhirSettings:
    """Read once: it takes a millisecond, and there are 25,000 parsers."""
    return FhirSettings(full_text=True)


def parser() -> SearchParser:
    context = AccessContext("test", "", parse_scopes("system/*.cruds"))
    return SearchParser(settings(), "http://127.0.0.1:8000/fhir", Access(context))


def test_there_are_1400() -> None:
    assert len(definitions()) == 1400
    assert sum(1 for _ in asked()) > 1600


async def test_each_is_answered_with_a_value_of_its_kind(module_api: Api) -> None:
    """An empty record: what is tested is that each becomes a statement that the database takes."""
    queries = sorted(
        {
            f"{resource_type}?{item['code']}={value_of(item, resource_type)}"
            for resource_type, item in asked()
            if item["code"] not in ("_text", "_content")
        }
    )
    wrong = []
    for first in range(0, len(queries), 300):
        part = queries[first : first + 300]
        entries = [
            {"request": {"method": "GET", "url": query.replace("|", "%7C").replace(" ", "%20")}} for query in part
        ]
        response = await module_api.transaction(*entries, kind="batch", prefer="handling=strict")
        for query, entry in zip(part, response.json()["entry"], strict=True):
            if not entry["response"]["status"].startswith("200"):
                wrong.append((query, entry["response"]))
    assert wrong == []


def test_each_takes_every_modifier_of_its_kind_and_no_other() -> None:
    everything = {name for names in MODIFIERS.values() for name in names}
    taken = 0
    for resource_type, item in asked():
        parameter = type_parameters(resource_type).parameters.get(item["code"])
        if parameter is None:  # _id, _lastUpdated and others that are no table's: test_search_modifiers.py
            continue
        own = set(MODIFIERS[parameter.kind]) if item["code"] not in COMPUTED else set()
        if "Identifier" not in parameter.data_types:
            own.discard("of-type")
        if any(path.endswith("#true") for path in parameter.paths):
            own = {"missing", "not"}
        for modifier in sorted(everything | {"Patient"}):
            is_own = modifier in own or (modifier == "Patient" and parameter.kind == "reference")
            pairs = [(f"{item['code']}:{modifier}", OF_MODIFIER.get(modifier, value_of(item, resource_type)))]
            if parameter.kind == "reference" and modifier in ("above", "below"):
                continue  # Which types have a hierarchy: test_search_modifiers.py
            if not is_own:
                with pytest.raises(InvalidRequestError) as refusal:
                    parser().parse(resource_type, pairs, strict=True)
                assert item["code"] in refusal.value.message
                continue
            request = parser().parse(resource_type, pairs, strict=True)
            if modifier not in ("in", "not-in", "above", "below"):
                page_statement(request.selection, NEWEST_FIRST, None, 10)
            taken += 1
    assert taken > 5000


async def test_each_can_be_sorted_by_but_composites(module_api: Api) -> None:
    keys: dict[str, list[str]] = {}
    for resource_type, item in asked():
        if item["type"] not in ("composite", "special") and item["code"] not in ("_text", "_content"):
            keys.setdefault(resource_type, []).append(item["code"])
    await module_api.put_ok({"resourceType": "Patient", "id": "one"})
    entries = []
    for resource_type, codes in sorted(keys.items()):
        unique = sorted(set(codes))
        for first in range(0, len(unique), 8):
            signed = [f"{'-' if number % 2 else ''}{code}" for number, code in enumerate(unique[first : first + 8])]
            entries.append({"request": {"method": "GET", "url": f"{resource_type}?_sort={','.join(signed)}"}})
    response = await module_api.transaction(*entries, kind="batch")
    wrong = [
        (entry["request"]["url"], answer["response"])
        for entry, answer in zip(entries, response.json()["entry"], strict=True)
        if not answer["response"]["status"].startswith("200")
    ]
    assert wrong == []
