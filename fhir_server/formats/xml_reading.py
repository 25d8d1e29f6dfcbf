"""From the XML form of a resource to its JSON form. https://hl7.org/fhir/R4/xml.html

Refused outright: a document type (and with it every entity), other namespaces, text between elements, an element
given twice. What is only wrong as a value or unknown as an element goes through as it stands, so that the validation
says where it is, with the same words as for JSON.
"""

from __future__ import annotations

import re
from typing import Any

import orjson
from lxml import etree

from fhir_server.formats.narrative import XHTML, text_of
from fhir_server.formats.xml_writing import NAMESPACE
from fhir_server.model.structure import ElementRule, TypeStructure, concrete_resources, structure_of
from foramen.kernel.errors import InvalidRequestError

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBERS = {"decimal", "integer", "positiveInt", "unsignedInt"}
_FHIR = f"{{{NAMESPACE}}}"
_XHTML = f"{{{XHTML}}}"
_ENCODING = re.compile(rb"^<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.-]+)")
_SCHEMA_LOCATION = "{http://www.w3.org/2001/XMLSchema-instance}schemaLocation"
_ELEMENT = structure_of("Element")


def to_json(body: bytes, max_depth: int, max_elements: int = 500_000) -> bytes:
    """Return the JSON form of a resource written in XML.

    Parameters
    ----------
    max_depth : deepest nesting of elements
    max_elements : most tags, as each takes some hundred bytes of memory

    Raises
    ------
    InvalidRequestError
        400: not XML in UTF-8, a document type, or not the XML form of a resource.
    """
    root = _parse(body, max_elements)
    try:
        return orjson.dumps(_resource(root, max_depth))
    except UnicodeEncodeError as exc:  # pragma: no cover - the parser lets no lone surrogate through
        raise _fault("The body is not valid XML in UTF-8", None) from exc


def _parse(body: bytes, max_elements: int) -> Any:
    """Parse without ever meeting an entity: in attributes the parser would put it in whatever it was told."""
    body = body.removeprefix(b"\xef\xbb\xbf")
    declared = _ENCODING.match(body)
    if declared is not None and declared.group(1).lower() not in (b"utf-8", b"us-ascii", b"ascii"):
        raise _fault("The XML must be encoded in UTF-8", None)
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise _fault("A document type (and with it entities) is not allowed", None)
    if body.count(b"<") > max_elements:
        raise InvalidRequestError("The XML has too many elements", issue_code="too-costly")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False, encoding="utf-8", remove_pis=True
    )
    try:
        root = etree.fromstring(body, parser)
    except (etree.XMLSyntaxError, ValueError) as exc:
        line, column = getattr(exc, "position", (0, 0))
        message = f"The body is not valid XML in UTF-8 (line {line}, column {column})"
        raise InvalidRequestError(message, issue_code="structure") from exc
    if _SCHEMA_LOCATION in root.attrib:
        del root.attrib[_SCHEMA_LOCATION]
    etree.cleanup_namespaces(root)
    return root


def _resource(element: Any, depth: int) -> dict[str, Any]:
    name = element.tag.removeprefix(_FHIR)
    structure = structure_of(name) if name in concrete_resources() and element.tag != name else None
    if structure is None:
        raise _fault(f"The element is no resource of R4 in the namespace {NAMESPACE}", element)
    data: dict[str, Any] = {"resourceType": name}
    _fill(data, element, structure, depth)
    return data


def _fill(data: dict[str, Any], element: Any, structure: TypeStructure | None, depth: int) -> None:
    """Add the attributes and children of an element to a JSON object."""
    if depth <= 0:
        raise InvalidRequestError("The XML is nested too deep", issue_code="too-long")
    rules = structure.elements if structure is not None else {}
    for name, value in element.attrib.items():
        rule = rules.get(name)
        if rule is None or not rule.is_attribute:
            raise _fault("An attribute is not allowed here", element)
        data[name] = value
    _no_text(element.text, element)
    for child in element:
        _no_text(child.tail, element)
        tag = child.tag
        if not isinstance(tag, str):
            continue  # a comment
        name = tag[len(_FHIR) :] if tag.startswith(_FHIR) else ""
        rule = rules.get(name or tag.removeprefix(_XHTML))
        if not name and (rule is None or rule.type_name != "xhtml"):
            raise _fault("An element has the wrong namespace", child)
        if rule is None or rule.is_attribute:
            _unknown(data, name, child, depth)
        else:
            _member(data, child, rule, depth)


def _member(data: dict[str, Any], child: Any, rule: ElementRule, depth: int) -> None:
    name = rule.name
    if rule.is_primitive:
        value, more = _primitive(child, rule, depth)
    elif rule.type_name == "Resource":
        value, more = _only_resource(child, depth), None
    else:
        value, more = {}, None
        _fill(value, child, structure_of(rule.type_name), depth - 1)
    if rule.repeats:
        _append(data, name, value, more)
        return
    if name in data or f"_{name}" in data:
        raise _fault("An element is given twice", child)
    if value is not None:
        data[name] = value
    if more is not None:
        data[f"_{name}"] = more


def _append(data: dict[str, Any], name: str, value: Any, more: Any) -> None:
    """Add an item to a list; the list of ids and extensions beside it is as long (json.html#primitive)."""
    below = f"_{name}"
    values, mores = data.get(name), data.get(below)
    count = len(values) if values is not None else len(mores) if mores is not None else 0
    if values is None and value is not None:
        values = data[name] = [None] * count
    if mores is None and more is not None:
        mores = data[below] = [None] * count
    if values is not None:
        values.append(value)
    if mores is not None:
        mores.append(more)


def _primitive(child: Any, rule: ElementRule, depth: int) -> tuple[Any, dict[str, Any] | None]:
    if rule.type_name == "xhtml":
        if child.tag != f"{_XHTML}div":
            raise _fault(f"The narrative must be a div in the namespace {XHTML}", child)
        return text_of(child), None
    text = child.attrib.pop("value", None)
    more: dict[str, Any] = {}
    if len(child) or child.attrib or child.text is not None:
        _fill(more, child, _ELEMENT, depth - 1)
    if text is None and not more:
        raise _fault("An element needs a value or children", child)
    return (None if text is None else _value(text, rule.type_name)), more or None


def _value(text: str, kind: str) -> Any:
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    if kind in _NUMBERS and _NUMBER.fullmatch(text):
        return orjson.Fragment(text)
    return text


def _only_resource(child: Any, depth: int) -> dict[str, Any]:
    inside = [item for item in child if isinstance(item.tag, str)]
    if len(inside) != 1 or child.attrib or depth <= 1:
        raise _fault("Exactly one resource is needed here", child)
    return _resource(inside[0], depth - 1)


def _unknown(data: dict[str, Any], name: str, child: Any, depth: int) -> None:
    """Keep what R4 does not know: the validation refuses it by name."""
    if name in data or name == "resourceType":
        raise _fault("An element is given twice", child)
    value = child.attrib.pop("value", None)
    if value is not None:
        data[name] = value
        return
    data[name] = {}
    child.attrib.clear()
    _fill(data[name], child, None, depth - 1)


def _no_text(text: str | None, element: Any) -> None:
    if text is not None and text.strip():
        raise _fault("Text is not allowed between elements", element)


def _fault(message: str, element: Any) -> InvalidRequestError:
    expression: tuple[str, ...] = ()
    if element is not None:
        names = [str(item.tag).rpartition("}")[2] for item in (*reversed(list(element.iterancestors())), element)]
        # Only names that R4 has may be repeated: anything else could hold what nobody should read in a log.
        expression = (".".join(name if name.isalnum() and name.isascii() else "*" for name in names),)
    return InvalidRequestError(message, issue_code="structure", expression=expression)
