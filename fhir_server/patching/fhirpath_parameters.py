"""Read a FHIRPath Patch: a Parameters resource with one `operation` parameter each. https://hl7.org/fhir/R4/fhirpatch.html"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from fhir_server.fhirpath.expression import Expression, FhirPathError, compile_expression
from fhir_server.model.structure import ElementRule, TypeStructure, structure_of
from fhir_server.patching.faults import malformed
from fhir_server.patching.members import Primitive
from foramen.kernel.errors import InvalidRequestError

_NEEDS = {
    "add": {"path", "name", "value"},
    "insert": {"path", "value", "index"},
    "delete": {"path"},
    "replace": {"path", "value"},
    "move": {"path", "source", "destination"},
}
_TEXTS = {"type": "valueCode", "path": "valueString", "name": "valueString"}
_NUMBERS = ("index", "source", "destination")


@dataclass(frozen=True, slots=True)
class Step:
    """One operation; `value` is the parameter that holds the new value."""

    place: int
    kind: str
    path: Expression
    name: str = ""
    value: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)


@lru_cache(maxsize=1)
def _value_types() -> dict[str, str]:
    """JSON name of `value[x]` → type."""
    extension = structure_of("Extension")
    assert extension is not None  # noqa: S101 - every table has it
    return {name: kind for kind, name in extension.choices["value"].items()}


def parse_steps(data: dict[str, Any], max_operations: int) -> tuple[Step, ...]:
    """Parse the resource.

    Raises
    ------
    InvalidRequestError
        400: not a FHIRPath Patch, too many operations, or a path that is not FHIRPath.
    """
    items = data.get("parameter")
    if data.get("resourceType") != "Parameters" or not isinstance(items, list) or not items:
        raise InvalidRequestError("A FHIRPath Patch is a Parameters resource with operations", issue_code="structure")
    if len(items) > max_operations:
        raise InvalidRequestError(f"The patch has more than {max_operations} operations", issue_code="too-costly")
    return tuple(_step(place, item) for place, item in enumerate(items))


def _step(place: int, item: Any) -> Step:
    parts = item.get("part") if isinstance(item, dict) and item.get("name") == "operation" else None
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise malformed(place, "is not a parameter 'operation' with parts")
    texts: dict[str, str] = {}
    numbers: dict[str, int] = {}
    value: dict[str, Any] = {}
    for part in parts:
        name = part.get("name")
        if name in texts or name in numbers or (name == "value" and value):
            raise malformed(place, "has a part twice")
        if name in _TEXTS:
            texts[name] = _text(place, name, part)
        elif name in _NUMBERS:
            numbers[name] = _number(place, name, part)
        elif name == "value":
            value = part
        else:
            raise malformed(place, "has an unknown part")
    kind = texts.pop("type", "")
    given = {*texts, *numbers, *(["value"] if value else [])}
    if kind not in _NEEDS or given != _NEEDS[kind]:
        needed = {name: sorted(parts) for name, parts in _NEEDS.items()}.get(kind, sorted(_NEEDS))
        raise malformed(place, f"must have: {', '.join(needed)}" if kind in _NEEDS else f"has a type not of {needed}")
    try:
        path = compile_expression(texts["path"])
    except FhirPathError as exc:
        raise malformed(place, f"has a bad path: {exc.message}") from exc
    return Step(place, kind, path, texts.get("name", ""), value, numbers)


def _text(place: int, name: str, part: dict[str, Any]) -> str:
    found = part.get(_TEXTS[name], part.get("valueString"))
    if not isinstance(found, str) or not found:
        raise malformed(place, f"needs {name} as {_TEXTS[name]}")
    return found


def _number(place: int, name: str, part: dict[str, Any]) -> int:
    found = part.get("valueInteger")
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise malformed(place, f"needs {name} as valueInteger, counted from 0")
    return found


def rule_of(structure: TypeStructure, name: str, parameter: dict[str, Any]) -> ElementRule | None:
    """Return the element a value goes into; the value's own type chooses among those of a choice."""
    rule = structure.elements.get(name)
    if rule is not None:
        return rule
    names = structure.choices.get(name)
    kind = next(
        (_value_types()[key.removeprefix("_")] for key in parameter if key.removeprefix("_") in _value_types()), ""
    )
    return structure.elements.get(names.get(kind, "")) if names else None


def value_of(place: int, parameter: dict[str, Any], rule: ElementRule) -> Primitive:
    """Return the value a parameter holds: `value[x]`, a resource, or parts for a type that has no name.

    Raises
    ------
    InvalidRequestError
        400: none or several of them, or a part that the element does not have.
    """
    keys = [key for key in parameter if key not in ("name", "id", "extension")]
    bare = {key.removeprefix("_") for key in keys}
    if len(bare) != 1:
        raise malformed(place, "needs one value")
    key = bare.pop()
    if key == "part":
        return _from_parts(place, parameter["part"], rule), None
    if key == "resource" and rule.type_name == "Resource":
        return parameter[key], None
    if key not in _value_types():
        raise malformed(place, "has a value of no known type")
    value, more = parameter.get(key), parameter.get(f"_{key}")
    if rule.is_primitive == isinstance(value, dict):
        raise malformed(place, f"has a value that is not of the type {rule.type_name}")
    return value, more


def _from_parts(place: int, parts: Any, rule: ElementRule) -> dict[str, Any]:
    structure = structure_of(rule.type_name)
    if structure is None or not isinstance(parts, list):
        raise malformed(place, f"has parts where the type is {rule.type_name}")
    built: dict[str, Any] = {}
    for part in parts:
        name = part.get("name") if isinstance(part, dict) else None
        inner = rule_of(structure, name, part) if isinstance(name, str) else None
        if inner is None:
            raise malformed(place, f"has a part that is no element of {rule.type_name}")
        value, more = value_of(place, part, inner)
        if not inner.repeats and (inner.name in built or f"_{inner.name}" in built):
            raise malformed(place, "has a part twice")
        if inner.repeats:
            length = max(len(built.get(inner.name, [])), len(built.get(f"_{inner.name}", [])))
            for key, item in ((inner.name, value), (f"_{inner.name}", more)):
                if item is not None or key in built:
                    items = built.setdefault(key, [])
                    items += [None] * (length - len(items))
                    items.append(item)
        else:
            built.update({k: v for k, v in ((inner.name, value), (f"_{inner.name}", more)) if v is not None})
    return built
