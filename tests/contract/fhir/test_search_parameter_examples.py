"""Every R4 search parameter, by the official examples: what its expression selects, evaluated apart from the index by
the FHIRPath engine, is a value that finds the example.
"""
# ruff: noqa: T201 - counts are printed on purpose

from __future__ import annotations

import asyncio
import re
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from fhir_server.fhirpath.expression import compile_expression
from fhir_server.fhirpath.node import Node
from fhir_server.search.parameters import r4_parameters, resource_types
from foramen.kernel.errors import InvalidRequestError
from tests.conftest import TEST_DATA
from tests.contract.fhir.api import Api

pytestmark = pytest.mark.fhir_definitions

MOST_EXAMPLES = 120
"""Examples of one type that are looked through for values."""
LARGEST = 60_000
META = {
    "source": "https://foramen.example/synthetic",
    "tag": [{"system": "https://foramen.example/tag", "code": "SYNTHETIC"}],
    "security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "N"}],
}
_AGE = {"system": "http://terminology.hl7.org/CodeSystem/usage-context-type", "code": "age"}
USE_CONTEXT = [
    {
        "code": _AGE,
        "valueCodeableConcept": {"coding": [{"system": "https://foramen.example/age", "code": "SYNTHETIC"}]},
    },
    {"code": _AGE, "valueQuantity": {"value": 40, "system": "http://unitsofmeasure.org", "code": "a"}},
]
DATES = {"date", "dateTime", "instant", "Period", "Timing"}
ELSEWHERE = {"_id", "_lastUpdated", "_text", "_content", "_query", "_filter", "near", "age"}
EXAMPLES_OF_A_PARAMETER = {"example", "example-extension", "example-reference"}
REVERSED = {"DocumentReference-relationship"}  # R4 names its two components in the wrong order.


@dataclass
class Case:
    """One parameter of one type, and an example it has a value in."""

    resource_type: str
    code: str
    kind: str
    value: str
    example: dict[str, Any]


def _archive(name: str, wanted: Callable[[str], bool]) -> list[dict[str, Any]]:
    found = []
    with tarfile.open(Path(TEST_DATA).parent / "fhir" / name) as archive:
        for member in archive:
            if member.name.endswith(".json") and wanted(Path(member.name).name) and member.size < LARGEST:
                stream = archive.extractfile(member)
                found.append((member.size, member.name, stream.read() if stream else b"{}"))
    return [orjson.loads(text) for _, _, text in sorted(found)]


@lru_cache(maxsize=1)
def definitions() -> dict[str, dict[str, Any]]:
    found = _archive("core-r4.tgz", lambda name: name.startswith("SearchParameter-"))
    return {item["url"]: item for item in found if item["id"] not in EXAMPLES_OF_A_PARAMETER}


def examples() -> dict[str, list[dict[str, Any]]]:
    """Examples by type, small ones first: more of them differ."""
    found: dict[str, list[dict[str, Any]]] = {}
    for item in _archive("examples-r4.tgz", lambda name: name not in ("package.json", ".index.json")):
        known = found.setdefault(item.get("resourceType", ""), [])
        if len(known) < MOST_EXAMPLES and "id" in item:
            # No official example has these; they are elements of every resource.
            first = {"meta": {**item.get("meta", {}), **META}}
            if "context-type-value" in r4_parameters(item["resourceType"]).parameters:
                first["useContext"] = USE_CONTEXT
            known.append(item if known else {**item, **first})
    return found


def _resolve(reference: str) -> dict[str, Any] | None:
    match = re.search(r"([A-Z][A-Za-z]+)/([A-Za-z0-9.-]+)$", reference)
    return {"resourceType": match.group(1), "id": match.group(2)} if match else None


def _escaped(text: str) -> str:
    return re.sub(r"([\\,|$])", r"\\\1", text)


def _token(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, dict):
        return _escaped(str(value))
    for part in value.get("coding", [value]):
        code = part.get("code", part.get("value"))
        if isinstance(code, str):
            system = part.get("system") if "use" not in part or "type" in part or "coding" in value else None
            is_url = system is not None and system.startswith(("http", "urn"))
            return f"{_escaped(system)}|{_escaped(code)}" if is_url else _escaped(code)
    return None


def _date(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if "event" in value:
        return f"ge{value['event'][0]}"
    start, end = value.get("start"), value.get("end")
    return f"ge{start}" if start else f"le{end}" if end else None


def _string(value: Any) -> str | None:
    if isinstance(value, dict):
        lists = (*value.get("given", []), *value.get("line", []))
        texts = [value.get("family"), value.get("city"), *lists, value.get("text")]
        value = next((text for text in texts if text), None)
    # Where words are cut, white space may have been folded.
    return _escaped(value.strip()[:30].strip()) if isinstance(value, str) and value.strip() else None


def _quantity(value: Any) -> str | None:
    if not isinstance(value, dict):
        return str(value)
    if "low" in value or "high" in value:
        low, high = value.get("low", {}).get("value"), value.get("high", {}).get("value")
        return f"ge{low}" if low is not None else f"le{high}" if high is not None else None
    number = value.get("value")
    if number is None or value.get("comparator"):
        return None
    if "code" in value and "system" in value:
        return f"{number}|{_escaped(value['system'])}|{_escaped(value['code'])}"
    return str(number)


def _reference(value: Any) -> str | None:
    text = value.get("reference") if isinstance(value, dict) else value
    if isinstance(value, dict) and "resourceType" in value:
        text = f"{value['resourceType']}/{value['id']}" if "id" in value else None
    return _escaped(text) if isinstance(text, str) and not text.startswith("#") else None


VALUES: dict[str, Callable[[Any], str | None]] = {
    "token": _token,
    "date": _date,
    "string": _string,
    "quantity": _quantity,
    "number": _quantity,
    "reference": _reference,
    "uri": lambda value: _escaped(value) if isinstance(value, str) else None,
}


def _nodes(expression: str, root: dict[str, Any], resource: dict[str, Any]) -> list[Node]:
    try:
        return list(compile_expression(expression).nodes(root, resource=resource, resolve=_resolve))
    except InvalidRequestError:
        return []


def _plain(value: Any) -> Any:
    return float(value) if type(value).__name__ == "Decimal" else value


def _value(item: dict[str, Any], example: dict[str, Any]) -> str | None:
    """Return a search value that the example has under this parameter."""
    if item["type"] == "composite":
        return _composite(item, example)
    for node in _nodes(item["expression"], example, example):
        if item["type"] == "date" and node.type_name not in DATES:
            continue  # CarePlan.activity.detail.scheduled[x] may be a text.
        value = VALUES[item["type"]](_plain(node.value))
        if value is not None and _is_target(item, value):
            return value
    return None


def _is_target(item: dict[str, Any], value: str) -> bool:
    """Bundle.entry[0] is a MessageHeader or Composition for the parameters of that name alone."""
    target = re.fullmatch(r"([A-Z][A-Za-z]+)/[A-Za-z0-9.-]+", value)
    return item["type"] != "reference" or target is None or target.group(1) in item.get("target", [target.group(1)])


def _composite(item: dict[str, Any], example: dict[str, Any]) -> str | None:
    kinds = [definitions()[part["definition"]]["type"] for part in item["component"]]
    if item["id"] in REVERSED:
        kinds.reverse()
    for base in _nodes(item["expression"], example, example):
        texts = []
        for part, kind in zip(item["component"], kinds, strict=True):
            inner = part["expression"].replace("as(DateTime)", "as(dateTime)")
            steps = (step if isinstance(step, str) else f"[{step}]" for step in base.path)
            path = ".".join(steps).replace(".[", "[")
            whole = (
                inner
                if inner.startswith("%resource")
                else " | ".join(
                    f"{example['resourceType']}{'.' if path else ''}{path}.{branch.strip()}"
                    for branch in inner.split("|")
                )
            )
            found = [VALUES[kind](_plain(node.value)) for node in _nodes(whole, example, example)]
            texts.append(next((text for text in found if text is not None), None))
        if all(text is not None for text in texts):
            return "$".join(str(text) for text in texts)
    return None


def cases() -> tuple[list[Case], Counter[str]]:
    """One case for each parameter and type that any example has a value for."""
    found, without = [], Counter[str]()
    by_type = examples()
    wanted: dict[str, list[dict[str, Any]]] = {}
    for item in definitions().values():
        if item["code"] in ELSEWHERE or not item.get("expression") or item["type"] == "special":
            continue
        bases = item.get("base", [])
        types = resource_types() if set(bases) & {"Resource", "DomainResource"} else set(bases) & resource_types()
        for name in types:
            wanted.setdefault(name, []).append(item)
    for name, items in sorted(wanted.items()):
        open_items = list(items)
        for example in by_type.get(name, []):
            still = []
            for item in open_items:
                value = _value(item, example)
                if value is None:
                    still.append(item)
                else:
                    found.append(Case(name, item["code"], item["type"], value, example))
            open_items = still
        without.update(item["type"] for item in open_items)
    return found, without


async def test_what_an_expression_selects_finds_the_example(
    module_api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    found, without = cases()
    stored: dict[tuple[str, str], str] = {}
    refused = 0
    for case in found:
        key = (case.resource_type, case.example["id"])
        if key in stored:
            continue
        if case.resource_type == "AuditEvent":
            response = await module_api.post("/fhir/AuditEvent", case.example)
        else:
            response = await module_api.put(f"/fhir/{key[0]}/{key[1]}", case.example)
        refused += response.status_code not in (200, 201)
        stored[key] = response.json().get("id", "") if response.status_code in (200, 201) else ""
    limit = asyncio.Semaphore(8)

    async def check(case: Case) -> tuple[Case, str]:
        logical_id = stored[case.resource_type, case.example["id"]]
        if not logical_id:
            return case, "not stored"
        async with limit:
            query = f"{quote(case.code)}={quote(case.value)}&_id={logical_id}&_elements=id"
            response = await module_api.get(f"/fhir/{case.resource_type}?{query}", prefer="handling=strict")
        if response.status_code != 200:
            return case, response.json()["issue"][0]["diagnostics"]
        return case, "found" if response.json().get("total") == 1 else "not found"

    results = [await check(case) for case in found]
    good = Counter(case.kind for case, result in results if result == "found")
    bad = [
        f"{c.resource_type}?{c.code}={c.value} ({c.example['id']}): {r}"
        for c, r in results
        if r not in ("found", "not stored")
    ]
    with capsys.disabled():
        print(f"\nparameters of types that find an official example by its value: {sum(good.values())} {dict(good)}; ")
        print(f"no official example has a value: {sum(without.values())} {dict(without)}; examples refused: {refused}")
    assert bad == [], "\n".join(bad)
    assert sum(good.values()) > 1650
    assert good["composite"] > 60
