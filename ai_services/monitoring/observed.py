"""What one Observation says: codes and numbers, never words. Pure.

https://hl7.org/fhir/R4/observation.html; components as ai_services/results/observation.py writes them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from terminology import systems

Resource = dict[str, Any]
_CODE = re.compile(r"[A-Za-z0-9.{}/%+\-]{1,40}")
"""What a code may look like here: our systems are open to no list, and a name typed as a code has to stay out."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value that holds nothing of a person: a code of our systems, a number with its unit, or why there is none.

    `kind` is ``code``, ``number`` or ``absent``; `code` is the code, the UCUM unit, or the data-absent-reason.
    """

    kind: Literal["code", "number", "absent"]
    code: str
    system: str | None = None
    number: float | None = None


def value_of(observation: Resource) -> Value | None:
    """The value of an Observation; None for words and codes of systems that are not ours: they may name a person."""
    if "valueCodeableConcept" in observation:
        for coding in observation["valueCodeableConcept"].get("coding", []):
            system = str(coding.get("system", ""))
            code = str(coding.get("code", ""))
            if system.startswith(f"{systems.BASE}/CodeSystem/") and _CODE.fullmatch(code):
                return Value("code", code, system)
        return None
    quantity = observation.get("valueQuantity")
    if quantity is not None and isinstance(quantity.get("value"), int | float):
        unit = str(quantity.get("code", "1"))
        return Value("number", unit, systems.UCUM, float(quantity["value"])) if _CODE.fullmatch(unit) else None
    for coding in observation.get("dataAbsentReason", {}).get("coding", []):
        code = str(coding.get("code", ""))
        if coding.get("system") == systems.DATA_ABSENT_REASON and _CODE.fullmatch(code):
            return Value("absent", code)
    return None


def plain(reference: str) -> str:
    """The reference without its version."""
    return reference.partition("/_history/")[0]


def code_of(concept: Resource | None, system: str) -> str | None:
    """Code of a CodeableConcept in a system; None where it has none."""
    codes = (str(item.get("code", "")) for item in (concept or {}).get("coding", []) if item.get("system") == system)
    return next((code for code in codes if _CODE.fullmatch(code)), None)


def component_of(observation: Resource | None, code: str) -> float | None:
    """Number in a component; None where there is no such component, or no Observation."""
    for component in (observation or {}).get("component", []):
        if code_of(component.get("code"), systems.COMPONENT) == code:
            value = component.get("valueQuantity", {}).get("value", component.get("valueInteger"))
            return None if value is None else float(value)
    return None


def is_numbering_confident(observation: Resource | None) -> bool | None:
    """What the model said of its counting of vertebrae; None where it did not."""
    for component in (observation or {}).get("component", []):
        if code_of(component.get("code"), systems.COMPONENT) == "numbering-confident":
            value = component.get("valueBoolean")
            return value if isinstance(value, bool) else None
    return None
