"""The patient compartment: which reference parameters of a type put a resource into a patient's record.

https://hl7.org/fhir/R4/compartmentdefinition-patient.html
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import orjson

_FILE = Path(__file__).with_name("r4_patient_compartment.json")


@lru_cache(maxsize=1)
def patient_compartment() -> dict[str, list[str]]:
    """Resource type → search parameters that bind it to a patient.

    `Patient.link` is left out on purpose: a patient's compartment holds their own Patient resource and no other.
    """
    table: dict[str, list[str]] = orjson.loads(_FILE.read_bytes())
    del table["header"]
    table["Patient"] = []
    return table


@lru_cache(maxsize=1)
def _others() -> dict[str, dict[str, list[str]]]:
    table: dict[str, dict[str, list[str]]] = orjson.loads(_FILE.with_name("r4_compartments.json").read_bytes())
    del table["header"]
    return table


def compartment_types() -> tuple[str, ...]:
    """Resource types that have a compartment."""
    return (*sorted(_others()), "Patient")


def compartment(name: str) -> dict[str, list[str]]:
    """Resource type → search parameters that bind it to a compartment; ``{def}`` is the compartment's own resource.

    Raises
    ------
    KeyError
        R4 has no compartment of this type.
    """
    return patient_compartment() | {"Patient": ["{def}"]} if name == "Patient" else _others()[name]
