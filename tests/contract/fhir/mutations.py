"""Break valid resources in known ways: each mutation knows where its fault lies.

A mutation takes a random generator and a parsed resource (a copy it may change) and returns the FHIRPath of what it
broke, or None where the resource has no such place.
"""

from __future__ import annotations

import random
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from fhir_server.model.elements import _tables
from fhir_server.model.structure import primitive_types, structure_of
from tests.conftest import TEST_DATA

Json = dict[str, Any]
Mutation = Callable[[random.Random, Json], str | None]
NUMBERS = {"integer", "decimal", "positiveInt", "unsignedInt"}
URIS = {"uri", "url", "canonical"}


@dataclass(frozen=True)
class Place:
    """One element of a resource: its owner, its JSON name and its type."""

    path: str
    owner: Json
    owner_path: str
    owner_type: str
    name: str
    type_name: str
    repeats: bool
    choice: str

    @property
    def value(self) -> Any:
        return self.owner[self.name]

    @property
    def first(self) -> Any:
        return self.value[0] if self.repeats else self.value

    @property
    def first_path(self) -> str:
        return f"{self.path}[0]" if self.repeats else self.path

    def put(self, value: Any) -> str:
        """Replace the (first) value."""
        if self.repeats:
            self.owner[self.name][0] = value
        else:
            self.owner[self.name] = value
        return self.first_path


def places(data: Json, type_name: str, path: str) -> Iterator[Place]:
    """Every element of a resource, from the outside in; extensions and contained resources are not entered."""
    structure = structure_of(type_name)
    if structure is None:
        return
    for name, value in data.items():
        rule = structure.elements.get(name)
        if rule is None or name in ("resourceType", "contained", "extension", "modifierExtension"):
            continue
        yield Place(f"{path}.{name}", data, path, type_name, name, rule.type_name, rule.repeats, rule.choice)
        if rule.type_name in primitive_types() or rule.type_name == "Resource":
            continue
        for number, item in enumerate(value if rule.repeats else [value]):
            if isinstance(item, dict):
                inner = f"{path}.{name}[{number}]" if rule.repeats else f"{path}.{name}"
                yield from places(item, rule.type_name, inner)


def choose(rng: random.Random, data: Json, wanted: Callable[[Place], bool]) -> Place | None:
    found = [p for p in places(data, data["resourceType"], data["resourceType"]) if p.value and wanted(p)]
    return rng.choice(found) if found else None


def objects(data: Json) -> list[tuple[str, Json, str]]:
    """(path, object, type) of the resource and every complex element."""
    found = [(data["resourceType"], data, data["resourceType"])]
    for place in places(data, data["resourceType"], data["resourceType"]):
        if isinstance(place.first, dict) and place.type_name != "Resource":
            found.append((place.first_path, place.first, place.type_name))
    return found


def put(kinds: set[str], value: Any) -> Mutation:
    """Replace a value of one of these types."""

    def mutate(rng: random.Random, data: Json) -> str | None:
        place = choose(rng, data, lambda p: p.type_name in kinds and p.name != "id" and p.first is not None)
        return place.put(value) if place else None

    return mutate


def put_rule(kind: str, value: Any, detail: object = None) -> Mutation:
    """Replace a value that a rule of the element tables speaks of."""

    def of_kind(place: Place) -> bool:
        rule = _tables()[0].get(place.owner_type, {}).get(place.name)
        return rule is not None and rule[0] == kind and detail in (None, rule[1]) and place.name != "id"

    def mutate(rng: random.Random, data: Json) -> str | None:
        place = choose(rng, data, of_kind)
        return place.put(value) if place else None

    return mutate


def extend(extension: Json, at: str = "") -> Mutation:
    """Add an extension to some complex element."""

    def mutate(rng: random.Random, data: Json) -> str | None:
        path, item, type_name = rng.choice(objects(data))
        structure = structure_of(type_name)
        if structure is None or "extension" not in structure.elements:
            return None
        item.setdefault("extension", []).append(orjson.loads(orjson.dumps(extension)))
        return f"{path}.extension[{len(item['extension']) - 1}]{at}"

    return mutate


def add(name: str, value: Any) -> Mutation:
    """Add an element to some complex element."""

    def mutate(rng: random.Random, data: Json) -> str | None:
        path, item, _ = rng.choice(objects(data))
        item[name] = value
        return f"{path}.{name}"

    return mutate


def single_as_list(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: not p.repeats)
    if place is None:
        return None
    place.owner[place.name] = [place.value]
    return place.path


def list_as_single(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: p.repeats)
    if place is None:
        return None
    place.owner[place.name] = place.value[0]
    return place.path


def complex_as_text(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: isinstance(p.first, dict))
    return place.put("text") if place else None


def text_as_object(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: isinstance(p.first, str))
    return place.put({"value": "text"}) if place else None


def empty_list(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: p.repeats)
    if place is None:
        return None
    place.owner[place.name] = []
    return place.path


def empty_object(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: isinstance(p.first, dict))
    return place.put({}) if place else None


def empty_string(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: isinstance(p.first, str))
    return place.put("") if place else None


def null_value(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: not p.repeats and f"_{p.name}" not in p.owner)
    return place.put(None) if place else None


def null_in_list(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: p.repeats and f"_{p.name}" not in p.owner)
    return place.put(None) if place else None


def second_choice(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: bool(p.choice))
    structure = structure_of(place.owner_type) if place else None
    if place is None or structure is None:
        return None
    others = {"Boolean": True, "String": "x", "DateTime": "2026-01-01", "Integer": 1, "Date": "2026-01-01"}
    others |= {"Period": {"start": "2026"}, "CodeableConcept": {"text": "x"}, "Reference": {"display": "x"}}
    for suffix, value in others.items():
        name = place.choice + suffix
        if name in structure.elements and name != place.name:
            place.owner[name] = value
            return f"{place.owner_path}.{place.choice}[x]"
    return None


@lru_cache(maxsize=1)
def mandatory() -> dict[str, set[str]]:
    """Type or backbone element → names of elements with min 1, from the official definitions."""
    found: dict[str, set[str]] = {}
    with tarfile.open(Path(TEST_DATA).parent / "fhir" / "core-r4.tgz") as archive:
        for member in archive:
            if not re.search(r"StructureDefinition-[A-Z]\w+\.json", member.name):
                continue
            stream = archive.extractfile(member)
            structure = orjson.loads(stream.read()) if stream else {}
            if structure.get("derivation") == "constraint":
                continue
            for element in structure["snapshot"]["element"][1:]:
                owner, _, name = element["path"].rpartition(".")
                if element["min"] > 0 and not name.endswith("[x]"):
                    found.setdefault(owner, set()).add(name)
    return found


def without_required(rng: random.Random, data: Json) -> str | None:
    found = [
        (path, item, name)
        for path, item, type_name in objects(data)
        for name in mandatory().get(type_name, ())
        if name in item and len(item) > 1
    ]
    if not found:
        return None
    path, item, name = rng.choice(found)
    del item[name]
    return f"{path}.{name}"


def wrong_target(rng: random.Random, data: Json) -> str | None:
    def bound(place: Place) -> bool:
        rule = _tables()[0].get(place.owner_type, {}).get(place.name)
        return rule is not None and rule[0] == "r" and bool(rule[1]) and "Basic" not in rule[1]

    place = choose(rng, data, bound)
    return f"{place.put({'reference': 'Basic/1'})}.reference" if place else None


def malformed_reference(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: p.type_name == "Reference")
    return f"{place.put({'reference': 'the patient himself'})}.reference" if place else None


def dangling_contained(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: p.type_name == "Reference")
    return place.put({"reference": "#not-there"}) if place else None


def resource_type(_: random.Random, data: Json) -> str | None:
    data["resourceType"] = "Pateint"
    return "Pateint"


def contained_type(_: random.Random, data: Json) -> str | None:
    if "contained" in (structure_of(data["resourceType"]) or structure_of("Patient")).elements:  # type: ignore[union-attr]
        data["contained"] = [*data.get("contained", []), {"resourceType": "Pateint", "id": "x9"}]
        return f"{data['resourceType']}.contained[{len(data['contained']) - 1}]"
    return None


def bad_id(_: random.Random, data: Json) -> str | None:
    data["id"] = "not an id"
    return f"{data['resourceType']}.id"


def long_id(_: random.Random, data: Json) -> str | None:
    data["id"] = "x" * 65
    return f"{data['resourceType']}.id"


def bad_primitive_extension(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: isinstance(p.value, str) and f"_{p.name}" not in p.owner)
    if place is None:
        return None
    place.owner[f"_{place.name}"] = {"extension": [{"url": "http://example.org/x", "valueDate": "2026-02-30"}]}
    return f"{place.owner_path}._{place.name}.extension[0].valueDate"


def unequal_primitive_lists(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: p.repeats and isinstance(p.first, str) and f"_{p.name}" not in p.owner)
    if place is None:
        return None
    place.owner[f"_{place.name}"] = [None] * len(place.value) + [{"id": "x"}]
    return f"{place.owner_path}._{place.name}"


def narrative(div: str) -> Mutation:
    def mutate(_: random.Random, data: Json) -> str | None:
        structure = structure_of(data["resourceType"])
        if structure is None or "text" not in structure.elements:
            return None
        data["text"] = {"status": "generated", "div": div}
        return f"{data['resourceType']}.text.div"

    return mutate


def swapped_period(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: p.type_name == "Period")
    return place.put({"start": "2026-02-01", "end": "2026-01-01"}) if place else None


def unit_without_system(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: p.type_name == "Quantity")
    return place.put({"value": 1, "code": "mm"}) if place else None


def telecom_without_system(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: p.type_name == "ContactPoint")
    return place.put({"value": "+49 1"}) if place else None


def attachment_without_type(rng: random.Random, data: Json) -> str | None:
    place = choose(rng, data, lambda p: p.type_name == "Attachment")
    return place.put({"data": "YWJj"}) if place else None


def contained_with_meta_version(_: random.Random, data: Json) -> str | None:
    if "contained" not in data:
        return None
    data["contained"][0]["meta"] = {"versionId": "1"}
    return str(data["resourceType"])


def value_and_reason(_: random.Random, data: Json) -> str | None:
    if data["resourceType"] != "Observation" or not any(name.startswith("value") for name in data):
        return None
    data["dataAbsentReason"] = {"text": "unknown"}
    return "Observation"


_DIV = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'
_URL = "http://example.org/x"
STRUCTURE: dict[str, Mutation] = {
    "unknown element": add("notAnElement", 1),
    "fhir_comments (DSTU2)": add("fhir_comments", ["x"]),
    "unknown primitive extension": add("_notAnElement", {"id": "x"}),
    "number for a string": put({"string", "markdown", "code"}, 5),
    "string for a boolean": put({"boolean"}, "true"),
    "string for a number": put(NUMBERS, "5"),
    "string for an object": complex_as_text,
    "object for a string": text_as_object,
    "list for a single element": single_as_list,
    "single element for a list": list_as_single,
    "required element missing": without_required,
    "empty string": empty_string,
    "empty list": empty_list,
    "empty object": empty_object,
    "null": null_value,
    "null in a list": null_in_list,
    "choice given twice": second_choice,
    "resourceType nonsense": resource_type,
    "contained resourceType nonsense": contained_type,
    "primitive extension lists of unequal length": unequal_primitive_lists,
}
FORMATS: dict[str, Mutation] = {
    "bad id": bad_id,
    "id of 65 characters": long_id,
    "impossible date": put({"date", "dateTime"}, "2026-02-30"),
    "date with slashes": put({"date", "dateTime"}, "2026/02/03"),
    "month 13": put({"date", "dateTime"}, "2026-13"),
    "dateTime without zone": put({"dateTime"}, "2026-02-03T10:00:00"),
    "dateTime without seconds": put({"dateTime"}, "2026-02-03T10:00Z"),
    "instant without time": put({"instant"}, "2026-02-03"),
    "impossible instant": put({"instant"}, "2026-02-30T10:00:00Z"),
    "time of 25 hours": extend({"url": _URL, "valueTime": "25:00:00"}, ".valueTime"),
    "URI with spaces": put(URIS, "not a uri"),
    "extension URL with spaces": extend({"url": "not a uri", "valueString": "x"}, ".url"),
    "bad OID": extend({"url": _URL, "valueOid": "urn:oid:9.x"}, ".valueOid"),
    "bad UUID": extend({"url": _URL, "valueUuid": "urn:uuid:1234"}, ".valueUuid"),
    "bad base64": extend({"url": _URL, "valueBase64Binary": "not base64!"}, ".valueBase64Binary"),
    "code with outer space": put({"code"}, " x"),
    "code with double space": put({"code"}, "a  b"),
    "positiveInt of 0": extend({"url": _URL, "valuePositiveInt": 0}, ".valuePositiveInt"),
    "negative unsignedInt": put({"positiveInt", "unsignedInt"}, -1),
    "integer overflow": put({"integer", "positiveInt", "unsignedInt"}, 2147483648),
    "integer with fraction": put({"integer", "positiveInt", "unsignedInt"}, 1.5),
    "control character": put({"string"}, "a\x01b"),
    "impossible date in a primitive's extension": bad_primitive_extension,
}
BINDINGS: dict[str, Mutation] = {
    "code outside a required binding": put_rule("c", "not-a-code"),
    "concept outside a required binding": put_rule("k", {"coding": [{"system": _URL, "code": "not-a-code"}]}),
    "media type nonsense": put_rule("f", "a picture", "mime"),
    "language tag nonsense": put_rule("f", "no_language_at_all", "language"),
    "currency nonsense": put_rule("f", "EURO", "currency"),
    "reference to a wrong type": wrong_target,
    "reference that is none": malformed_reference,
}
EXTENSIONS: dict[str, Mutation] = {
    "extension without url": extend({"valueString": "x"}, ".url"),
    "extension of an unknown type": extend({"url": _URL, "valueFoo": "x"}, ".valueFoo"),
    "extension with two values": extend({"url": _URL, "valueString": "x", "valueCode": "x"}, ".value[x]"),
    "impossible date in an extension": extend({"url": _URL, "valueDate": "2026-02-30"}, ".valueDate"),
}
NARRATIVES: dict[str, Mutation] = {
    "narrative with a script": narrative(_DIV.format("x<script>alert(1)</script>")),
    "narrative with an event handler": narrative(_DIV.format('<b onclick="x()">x</b>')),
    "narrative with a javascript link": narrative(_DIV.format('<a href=" java\nscript:x()">x</a>')),
    "narrative not well-formed": narrative(_DIV.format("<b>x")),
    "narrative without namespace": narrative("<div>x</div>"),
    "empty narrative": narrative(_DIV.format(" ")),
}
INVARIANTS: dict[str, Mutation] = {
    "ext-1: value and extensions": extend(
        {"url": _URL, "valueString": "x", "extension": [{"url": "y", "valueString": "z"}]}
    ),
    "ext-1: neither": extend({"url": _URL}),
    "per-1: end before start": swapped_period,
    "qty-3: code without system": unit_without_system,
    "cpt-2: value without system": telecom_without_system,
    "att-1: data without contentType": attachment_without_type,
    "ref-1: nothing contained has the id": dangling_contained,
    "dom-4: contained with a version": contained_with_meta_version,
    "obs-6: value and dataAbsentReason": value_and_reason,
}
MUTATIONS = STRUCTURE | FORMATS | BINDINGS | EXTENSIONS | NARRATIVES | INVARIANTS


def points_at(expression: str, path: str) -> bool:
    """Whether an issue's expression names the broken element, something in it, or the element that owns it."""
    if expression == path or expression.startswith((f"{path}.", f"{path}[")):
        return True
    owner = path.rpartition(".")[0]
    return expression in (owner, re.sub(r"\[\d+\]$", "", path))
