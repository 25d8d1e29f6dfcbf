"""Rules about elements that `fhirkit` does not check: bindings, reference targets, real dates, ids.

https://hl7.org/fhir/R4/terminologies.html#required, https://hl7.org/fhir/R4/datatypes.html#id

A resource first goes through `fhir_server.validation.quick`, which only says yes or no; this walk finds the faults.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from fhir_server.model.references import LOGICAL_ID
from fhir_server.search.dates import date_range
from fhir_server.validation.forms import FORMS, NOT_OF_FORM, UCUM
from fhir_server.validation.quick import QuickRules
from foramen.kernel.errors import Issue

_FILE = Path(__file__).with_name("r4_elements.json")
_TYPED_REFERENCE = re.compile(
    r"(?:.*/)?([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?(?:#.*)?"
)
_MAX_ISSUES = 50
_PRIMITIVE = ["o", "Element"]
"""Rule of the ``_name`` object of a primitive element."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_MAX_STRING = 1024 * 1024
# base64Binary, markdown and xhtml have no length of their own; the body's limit holds.
_LONG_TEXT = frozenset({"data", "blob", "content", "div", "valueBase64Binary", "valueMarkdown", "rawCode"})


@lru_cache(maxsize=1)
def _loaded() -> dict[str, Any]:
    table: dict[str, Any] = orjson.loads(_FILE.read_bytes())
    return table


@lru_cache(maxsize=1)
def _tables() -> tuple[dict[str, dict[str, list[Any]]], list[frozenset[str]]]:
    table = _loaded()
    return table["types"], [frozenset(codes) for codes in table["codes"]]


@lru_cache(maxsize=1)
def _concepts() -> list[dict[str, frozenset[str]]]:
    return [{system: frozenset(codes) for system, codes in item.items()} for item in _loaded()["concepts"]]


@lru_cache(maxsize=1)
def _quick() -> QuickRules:
    types, codes = _tables()
    return QuickRules(types, codes, _concepts())


@lru_cache(maxsize=1)
def summary_elements() -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """Type → (elements of `_summary=true`, mandatory elements)."""
    table = _loaded()
    return {
        name: (frozenset(elements), frozenset(table["mandatory"][name])) for name, elements in table["summary"].items()
    }


def element_issues(data: dict[str, Any], resource_type: str, *, ignore_id: bool = False) -> list[Issue]:
    """Check one resource; returns every fault found.

    Parameters
    ----------
    ignore_id : on create the id of the body means nothing (http.html#create), so it cannot be wrong
    """
    if _quick().passes(data, resource_type):
        return []
    issues: list[Issue] = []
    if ignore_id and "id" in data:
        data = {name: value for name, value in data.items() if name != "id"}
    _walk(data, resource_type, resource_type, issues)
    return issues


def text_issues(element: Any, path: str, name: str = "") -> list[Issue]:
    """Find what no string may hold: control characters, more than 1 MiB."""
    issues: list[Issue] = []
    if type(element) is dict:
        for key, value in element.items():
            issues += text_issues(value, f"{path}.{key}", key)
    elif type(element) is list:
        for number, item in enumerate(element):
            issues += text_issues(item, f"{path}[{number}]", name)
    elif type(element) is str:
        if _CONTROL.search(element):
            issues.append(Issue("value", "A string has no control characters but tab, line feed, return", (path,)))
        if len(element) > _MAX_STRING and name not in _LONG_TEXT:
            issues.append(Issue("too-long", "A string has at most 1,048,576 characters", (path,)))
    return issues[:_MAX_ISSUES]


def _walk(element: dict[str, Any], type_name: str, path: str, issues: list[Issue]) -> None:
    if not element:
        issues.append(Issue("structure", "An element has a value or children (ele-1)", (path,)))
    table = _tables()[0].get(type_name, {})
    for name, value in element.items():
        if len(issues) >= _MAX_ISSUES:
            return
        if name == "fhir_comments":
            issues.append(Issue("structure", "unknown element", (f"{path}.{name}",)))
        if type(value) is list and not value:
            issues.append(
                Issue("structure", "an empty array is not allowed; leave the element out", (f"{path}.{name}",))
            )
        rule = table.get(name) or (_PRIMITIVE if name.startswith("_") else None)
        if rule is None:
            continue
        if type(value) is list:
            for number, item in enumerate(value):
                if item is not None:
                    _check(item, rule, f"{path}.{name}[{number}]", issues)
        else:
            _check(value, rule, f"{path}.{name}", issues)


def _check(item: Any, rule: list[Any], path: str, issues: list[Issue]) -> None:
    kind, detail = rule
    if type(item) is dict:
        if kind == "o":
            _walk(item, detail, path, issues)
        elif kind == "r":
            _walk(item, "Reference", path, issues)
            _reference(item, detail, path, issues)
        elif kind in ("k", "g"):
            _walk(item, "CodeableConcept", path, issues)
            _concept(item, kind, detail, path, issues)
        elif kind == "*" and isinstance(item.get("resourceType"), str):
            _walk(item, item["resourceType"], path, issues)
    elif type(item) is str:
        _primitive(item, kind, detail, path, issues)


def _primitive(text: str, kind: str, detail: Any, path: str, issues: list[Issue]) -> None:
    if kind == "c":
        if text not in _tables()[1][detail]:
            issues.append(Issue("code-invalid", "The code is not in the required value set", (path,)))
    elif kind == "f":
        if not FORMS[detail](text):
            issues.append(Issue("code-invalid", NOT_OF_FORM[detail], (path,)))
    elif kind == "n":
        if not LOGICAL_ID.fullmatch(text):
            issues.append(Issue("value", "An id has 1 to 64 letters, digits, hyphens and dots", (path,)))
    elif kind == "w":
        if not text or any(letter.isspace() for letter in text):
            issues.append(Issue("value", "A URI is not empty and has no white space", (path,)))
    elif kind in "dti" and date_range(text) is None:
        issues.append(Issue("value", "There is no such date", (path,)))


def _concept(item: dict[str, Any], kind: str, detail: Any, path: str, issues: list[Issue]) -> None:
    codings = [coding for coding in item.get("coding") or () if type(coding) is dict]
    if kind == "g":
        good = any(coding.get("system") == UCUM and FORMS[detail](str(coding.get("code"))) for coding in codings)
    else:
        allowed = _concepts()[detail]
        good = any(coding.get("code") in allowed.get(str(coding.get("system")), ()) for coding in codings)
    # Without any coding there is no concept, unless an extension tells why (data-absent-reason).
    if not good and (codings or "text" in item):
        issues.append(Issue("code-invalid", "No coding is from the required value set", (path,)))


def _reference(item: dict[str, Any], targets: list[str], path: str, issues: list[Issue]) -> None:
    text = item.get("reference")
    if type(text) is not str or text.startswith(("#", "urn:")) or "?" in text:
        return
    match = _TYPED_REFERENCE.fullmatch(text)
    if match is None:
        if ":" not in text or any(letter.isspace() for letter in text):
            issues.append(Issue("value", "A reference has the form Type/id, #id or a URL", (f"{path}.reference",)))
        return
    if targets and match.group(1) not in targets and match.group(1) in _tables()[0] and ":" not in text:
        allowed = ", ".join(targets)
        issues.append(Issue("value", f"This reference may only point to {allowed}", (f"{path}.reference",)))
