"""Rules about elements that `fhirkit` does not check: required bindings, reference targets, real dates, id format.

https://hl7.org/fhir/R4/terminologies.html#required, https://hl7.org/fhir/R4/datatypes.html#id
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from fhir_server.model.references import LOGICAL_ID
from fhir_server.search.dates import date_range
from foramen.kernel.errors import Issue

_FILE = Path(__file__).with_name("r4_elements.json")
_TYPED_REFERENCE = re.compile(
    r"(?:.*/)?([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?(?:#.*)?"
)
_MAX_ISSUES = 50


@lru_cache(maxsize=1)
def _tables() -> tuple[dict[str, dict[str, list[Any]]], list[frozenset[str]]]:
    table = orjson.loads(_FILE.read_bytes())
    return table["types"], [frozenset(codes) for codes in table["codes"]]


@lru_cache(maxsize=1)
def summary_elements() -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """Type → (elements of `_summary=true`, mandatory elements)."""
    table = orjson.loads(_FILE.read_bytes())
    return {
        name: (frozenset(elements), frozenset(table["mandatory"][name])) for name, elements in table["summary"].items()
    }


def element_issues(data: dict[str, Any], resource_type: str) -> list[Issue]:
    """Check one resource; returns every fault found."""
    issues: list[Issue] = []
    identifier = data.get("id")
    if identifier is not None and not (isinstance(identifier, str) and LOGICAL_ID.fullmatch(identifier)):
        issues.append(Issue("value", "An id has 1 to 64 letters, digits, hyphens and dots", (f"{resource_type}.id",)))
    _walk(data, resource_type, resource_type, issues)
    return issues


def _walk(element: dict[str, Any], type_name: str, path: str, issues: list[Issue]) -> None:
    types, codes = _tables()
    table = types.get(type_name)
    if table is None:
        return
    for name, value in element.items():
        rule = table.get(name)
        if rule is None or len(issues) >= _MAX_ISSUES:
            continue
        if type(value) is list:
            for number, item in enumerate(value):
                if item is not None:
                    _check(item, rule, f"{path}.{name}[{number}]", issues, codes)
        else:
            _check(value, rule, f"{path}.{name}", issues, codes)


def _check(item: Any, rule: list[Any], path: str, issues: list[Issue], codes: list[frozenset[str]]) -> None:
    kind, detail = rule
    if kind == "o":
        if type(item) is dict:
            _walk(item, detail, path, issues)
    elif kind == "r":
        if type(item) is dict:
            _reference(item, detail, path, issues)
    elif kind == "c":
        if type(item) is str and item not in codes[detail]:
            issues.append(Issue("code-invalid", "The code is not in the required value set", (path,)))
    elif kind == "*":
        if type(item) is dict and isinstance(item.get("resourceType"), str):
            _walk(item, item["resourceType"], path, issues)
    elif type(item) is str and date_range(item) is None:
        issues.append(Issue("value", "There is no such date", (path,)))


def _reference(item: dict[str, Any], targets: list[str], path: str, issues: list[Issue]) -> None:
    text = item.get("reference")
    if type(text) is not str or text.startswith(("#", "urn:")) or "?" in text:
        return
    match = _TYPED_REFERENCE.fullmatch(text)
    if match is None:
        if ":" not in text:
            issues.append(Issue("value", "A reference has the form Type/id, #id or a URL", (f"{path}.reference",)))
        return
    if targets and match.group(1) not in targets and match.group(1) in _tables()[0] and ":" not in text:
        allowed = ", ".join(targets)
        issues.append(Issue("value", f"This reference may only point to {allowed}", (f"{path}.reference",)))
