"""What R4 says about its search parameters: canonical URL and meaning, read from the generated table.

https://hl7.org/fhir/R4/searchparameter-registry.html
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

_FILE = Path(__file__).with_name("r4_search_documentation.json.gz")
_BASE = "http://hl7.org/fhir/SearchParameter/"


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    table: dict[str, Any] = orjson.loads(gzip.decompress(_FILE.read_bytes()))
    del table["header"]
    return table


def documentation(resource_type: str, code: str) -> dict[str, str]:
    """Return `definition` and `documentation` of a parameter, as far as R4 gives them."""
    for owner in (resource_type, "DomainResource", "Resource"):
        found = _table().get(owner, {}).get(code)
        if found is not None:
            name, meaning = found
            return {"definition": _BASE + name, **({"documentation": meaning} if meaning else {})}
    return {}
