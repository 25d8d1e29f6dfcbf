"""Compartments: which reference parameters of a type put a resource into the record of a patient (or of another).

https://hl7.org/fhir/R4/compartmentdefinition.html
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import orjson

_FILE = Path(__file__).with_name("r4_compartments.json")
_PATIENT = "Patient"


@lru_cache(maxsize=1)
def _tables() -> dict[str, dict[str, list[str]]]:
    tables: dict[str, dict[str, list[str]]] = orjson.loads(_FILE.read_bytes())
    del tables["header"]
    return tables


@lru_cache(maxsize=1)
def patient_compartment() -> dict[str, list[str]]:
    """Resource type → search parameters that bind it to a patient; types that never are bound are left out.

    `Patient.link` is left out on purpose: a patient's compartment holds their own Patient resource and no other.
    """
    return {name: codes for name, codes in _tables()[_PATIENT].items() if name != _PATIENT}


def compartment_types() -> tuple[str, ...]:
    """Resource types that have a compartment."""
    return tuple(sorted(_tables()))


def compartment(name: str) -> dict[str, list[str]]:
    """Resource type → search parameters that bind it to a compartment; ``{def}`` is the compartment's own resource.

    Raises
    ------
    KeyError
        R4 has no compartment of this type.
    """
    return patient_compartment() | {_PATIENT: ["{def}"]} if name == _PATIENT else _tables()[name]
