"""The element rules as nested closures that only say yes or no: what nearly every resource passes through.

A "no" is not a fault yet: `fhir_server.model.elements` then walks the resource and says what is wrong and where. So a
check here may say "no" when in doubt, never "yes".
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

from fhir_server.model.references import LOGICAL_ID
from fhir_server.model.structure import structure_of
from fhir_server.validation.forms import FORMS

Check = Callable[[Any], bool]


def _is_real_date(text: str) -> bool:
    # Only days 29 to 31 and the year 0000 can be no date once the format is right; the slow walk decides those.
    return text[8:10] < "29" and text[:4] != "0000"


def _never(_: Any) -> bool:
    return False


class QuickRules:
    """Checks of every type, built when first needed."""

    def __init__(
        self,
        types: dict[str, dict[str, list[Any]]],
        codes: list[frozenset[str]],
        concepts: list[dict[str, frozenset[str]]],
    ) -> None:
        self._types = types
        self._codes = codes
        self._concepts = concepts
        self._objects: dict[str, Check] = {}
        self._unfinished: dict[str, Check] = {}
        self._building = threading.RLock()

    def passes(self, data: dict[str, Any], resource_type: str) -> bool:
        """Whether no rule can be broken."""
        try:
            return self._object(resource_type)(data)
        except (TypeError, AttributeError, KeyError):
            return False  # A wrong JSON type.

    def _object(self, type_name: str) -> Check:
        built = self._objects.get(type_name)
        if built is not None:
            return built
        with self._building:  # Other threads see a check only once all that it calls is built.
            built = self._objects.get(type_name) or self._unfinished.get(type_name)
            if built is not None:
                return built
            is_outermost = not self._unfinished
            try:
                built = self._build(type_name)
                if is_outermost:
                    self._objects.update(self._unfinished)
            finally:
                if is_outermost:
                    self._unfinished.clear()
            return built

    def _build(self, type_name: str) -> Check:
        table: dict[str, Check] = {}
        rule_of = table.get

        def check(item: dict[str, Any]) -> bool:
            if not item:
                return False
            for name, value in item.items():
                rule = rule_of(name)
                if rule is None:
                    if type(value) is list and not value:
                        return False
                    continue
                if type(value) is list:
                    if not value:
                        return False
                    for single in value:
                        if not rule(single):
                            return False
                elif not rule(value):
                    return False
            return True

        self._unfinished[type_name] = check
        for name, (kind, detail) in self._types.get(type_name, {}).items():
            table[name] = self._single(kind, detail)
        structure = structure_of(type_name)
        for rule in structure.elements.values() if structure is not None else ():
            if rule.is_primitive:  # Rare enough for the slow walk.
                table[f"_{rule.name}"] = _never
        table["fhir_comments"] = _never
        return check

    def _single(self, kind: str, detail: Any) -> Check:
        if kind == "o":
            return self._object(detail)
        if kind == "c":
            has: Check = self._codes[detail].__contains__
            return has
        if kind == "r":
            return self._reference(detail)
        if kind == "k":
            return self._concept(self._concepts[detail])
        if kind == "f":
            return FORMS[detail]
        others: dict[str, Check] = {
            "d": _is_real_date,
            "t": _is_real_date,
            "i": _is_real_date,
            "n": lambda text: LOGICAL_ID.fullmatch(text) is not None,
            "w": lambda text: " " not in text and text.isprintable(),
            "*": lambda item: self._object(item["resourceType"])(item),
        }
        return others.get(kind, _never)

    def _reference(self, targets: list[str]) -> Check:
        types = "|".join(targets) if targets else "[A-Z][A-Za-z]+"
        matches = re.compile(rf"(?:{types})/[A-Za-z0-9\-.]{{1,64}}|urn:uuid:[0-9a-f\-]+|#.*").fullmatch
        inside = self._object("Reference")

        def check(item: dict[str, Any]) -> bool:
            text = item.get("reference")
            if text is not None and matches(text) is None:
                return False
            return len(item) == 1 or inside(item)

        return check

    def _concept(self, allowed: dict[str, frozenset[str]]) -> Check:
        inside = self._object("CodeableConcept")

        def check(item: dict[str, Any]) -> bool:
            bound = any(coding["code"] in allowed[coding["system"]] for coding in item["coding"])
            return bound and inside(item)

        return check
