"""The definitions that ship: R4's own (reduced to what validation needs) and Foramen's profiles.

https://hl7.org/fhir/R4/profilelist.html, clinical model §6
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import orjson

from terminology.systems import BASE

_FOLDER = Path(__file__).parent
_TABLE = msgspec.json.Decoder(dict[str, msgspec.Raw])
_CANONICAL = "http://hl7.org/fhir/StructureDefinition/"


@lru_cache(maxsize=1)
def _r4() -> tuple[frozenset[str], dict[str, msgspec.Raw]]:
    # Kept as text (2 MB) and read one by one: as objects they would take ten times that.
    table = _TABLE.decode(gzip.decompress((_FOLDER / "r4_definitions.json.gz").read_bytes()))
    return frozenset(orjson.loads(bytes(table["keys"]))), _TABLE.decode(table["definitions"])


def base_keys() -> frozenset[str]:
    """Keys of the invariants of R4's own types: every write is checked against those already."""
    return _r4()[0]


@lru_cache(maxsize=64)
def r4_definition(url: str) -> dict[str, Any] | None:
    """Return one of R4's StructureDefinitions, with a snapshot, or None."""
    raw = _r4()[1].get(url)
    if raw is None:
        return None
    reduced = orjson.loads(bytes(raw))
    elements = reduced.pop("element")
    return {"resourceType": "StructureDefinition", "url": url, **reduced, "snapshot": {"element": elements}}


def r4_elements(type_or_url: str) -> list[dict[str, Any]] | None:
    """Return the snapshot elements of a type by its code, or of a definition by its URL."""
    found = r4_definition(type_or_url if ":" in type_or_url else _CANONICAL + type_or_url)
    return None if found is None else found["snapshot"]["element"]


@lru_cache(maxsize=256)
def _required_bindings(type_name: str) -> dict[str, str]:
    return {
        element["path"]: element["binding"]["valueSet"].partition("|")[0]
        for element in r4_elements(type_name) or ()
        if element.get("binding", {}).get("strength") == "required"
    }


def r4_binding(path: str) -> str | None:
    """Return the value set (without version) that R4 itself requires at ``Type.path``, or None."""
    return _required_bindings(path.partition(".")[0]).get(path)


@lru_cache(maxsize=1)
def own_definitions() -> dict[str, dict[str, Any]]:
    """Canonical URL → StructureDefinition of ours, as authored (differential)."""
    # The base of our canonicals is named in one place (ADR 0009), so the files have a word in its stead.
    texts = [path.read_bytes().replace(b"{BASE}", BASE.encode()) for path in sorted(_FOLDER.glob("*.json"))]
    found = [orjson.loads(text) for text in texts]
    return {structure["url"]: structure for structure in found}


@lru_cache(maxsize=1)
def own_profiles() -> dict[str, list[str]]:
    """Resource type → canonical URLs of our profiles of it (CapabilityStatement.rest.resource.supportedProfile)."""
    profiles: dict[str, list[str]] = {}
    for url, structure in own_definitions().items():
        if structure["kind"] == "resource":
            profiles.setdefault(structure["type"], []).append(url)
    return profiles
