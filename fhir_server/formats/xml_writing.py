"""From the JSON form of a resource to its XML form. https://hl7.org/fhir/R4/xml.html

Elements come in the order of their definition, as the schema demands; every number keeps its text.
"""

from __future__ import annotations

import json
import re
from typing import Any

from fhir_server.formats.narrative import xhtml_of
from fhir_server.model.structure import ElementRule, TypeStructure, structure_of
from foramen.kernel.errors import NotAcceptableError

NAMESPACE = "http://hl7.org/fhir"
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>'
_SPECIAL = re.compile('[&<>"\x00-\x1f\ud800-\udfff\ufffe\uffff]')
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}
_ELEMENT = structure_of("Element")


def to_xml(content: bytes, *, pretty: bool = False) -> bytes:
    """Return the XML form of a resource.

    Raises
    ------
    NotAcceptableError
        406: it holds what XML cannot carry (a control character in a string).
    """
    # Numbers stay text: a decimal must come out as it went in.
    data = json.loads(content, parse_float=str, parse_int=str)
    writer = _Writer(pretty=pretty)
    writer.resource(data, f' xmlns="{NAMESPACE}"', 0)
    return (_DECLARATION + writer.text()).encode()


class _Writer:
    """Collects the text of a document."""

    def __init__(self, *, pretty: bool) -> None:
        self._parts: list[str] = []
        self._pretty = pretty

    def text(self) -> str:
        """Everything written so far."""
        return "".join(self._parts)

    def _begin(self, depth: int) -> None:
        if self._pretty:
            self._parts.append("\n" + "  " * depth)

    def resource(self, data: dict[str, Any], attributes: str, depth: int) -> None:
        """Write a resource as an element named by its type."""
        name = data.get("resourceType")
        structure = structure_of(name) if isinstance(name, str) else None
        if structure is None:
            raise _cannot()
        self._element(
            structure.name, {k: v for k, v in data.items() if k != "resourceType"}, structure, attributes, depth
        )

    def _element(self, tag: str, data: dict[str, Any], structure: TypeStructure, attributes: str, depth: int) -> None:
        rules = structure.elements
        present: dict[str, ElementRule] = {}
        for key in data:
            name = key[1:] if key[0] == "_" else key
            rule = rules.get(name)
            if rule is None:
                raise _cannot()
            if rule.is_attribute:
                attributes += f' {name}="{escaped(data[key])}"'
            else:
                present[name] = rule
        self._begin(depth)
        if not present:
            self._parts.append(f"<{tag}{attributes}/>")
            return
        self._parts.append(f"<{tag}{attributes}>")
        for rule in sorted(present.values(), key=_position):
            self._member(data, rule, depth + 1)
        self._begin(depth)
        self._parts.append(f"</{tag}>")

    def _member(self, data: dict[str, Any], rule: ElementRule, depth: int) -> None:
        name = rule.name
        value, more = data.get(name), data.get("_" + name)
        if rule.repeats:
            values, mores = value or [], more or []
            for place in range(max(len(values), len(mores))):
                first = values[place] if place < len(values) else None
                second = mores[place] if place < len(mores) else None
                self._one(first, second, rule, depth)
        else:
            self._one(value, more, rule, depth)

    def _one(self, value: Any, more: Any, rule: ElementRule, depth: int) -> None:
        if rule.is_primitive:
            self._primitive(value, more, rule, depth)
        elif rule.type_name == "Resource":
            self._begin(depth)
            self._parts.append(f"<{rule.name}>")
            self.resource(_object(value), "", depth + 1)
            self._begin(depth)
            self._parts.append(f"</{rule.name}>")
        else:
            structure = structure_of(rule.type_name)
            if structure is None:
                raise _cannot()
            self._element(rule.name, _object(value), structure, "", depth)

    def _primitive(self, value: Any, more: Any, rule: ElementRule, depth: int) -> None:
        if rule.type_name == "xhtml":
            self._begin(depth)
            self._parts.append(xhtml_of(value))
            return
        attributes = "" if value is None else f' value="{escaped(value)}"'
        if more:
            assert _ELEMENT is not None  # noqa: S101 - every table has it
            self._element(rule.name, more, _ELEMENT, attributes, depth)
        elif attributes:
            self._begin(depth)
            self._parts.append(f"<{rule.name}{attributes}/>")


def _position(rule: ElementRule) -> int:
    return rule.position


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _cannot()
    return value


def escaped(value: Any) -> str:
    """Return a primitive value as the text of an attribute."""
    if value is True:
        return "true"
    if value is False:
        return "false"
    if not isinstance(value, str):
        raise _cannot()
    return value if _SPECIAL.search(value) is None else _SPECIAL.sub(_escape, value)


def _escape(match: re.Match[str]) -> str:
    found = _ESCAPES.get(match.group(0))
    if found is None:
        raise NotAcceptableError("The content holds a character that XML cannot carry; ask for JSON")
    return found


def _cannot() -> NotAcceptableError:
    return NotAcceptableError("The content has no form in XML; ask for JSON")
