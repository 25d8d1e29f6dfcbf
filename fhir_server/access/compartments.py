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
