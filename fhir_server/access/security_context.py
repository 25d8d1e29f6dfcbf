"""Who may see a Binary: those who see what its `securityContext` names. https://hl7.org/fhir/R4/binary.html#security

The reference is indexed as a compartment is (`search/index.py`): the key of what it names stands where a patient's key
would, so a Binary of a Patient lies in that patient's record, and a marker tells the type. What else decides over a
context that is no Patient (its own patient, a Consent) is not known from the Binary alone: who is bound by it is
refused.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fhir_server.model.references import normalise_reference
from fhir_server.search.hashing import hash64

BINARY = "Binary"
UNKNOWN = ""
"""Stands for the type of a context that is not here: on another server, contained, or named by an identifier only."""
_NOWHERE = "/"


def security_context(binary: dict[str, Any], own_url: str, types: frozenset[str]) -> tuple[str, str] | None:
    """Return (type, reference) of what a Binary's securityContext names, or None when it has none.

    Parameters
    ----------
    types : the resource types of R4; what names another one names nothing here
    """
    context = binary.get("securityContext")
    if context is None:
        return None
    reference = context.get("reference") if isinstance(context, dict) else None
    if not isinstance(reference, str):
        return UNKNOWN, _NOWHERE
    text = normalise_reference(reference, own_url)
    resource_type, _, logical_id = text.partition("/")
    if resource_type in types and logical_id and "/" not in logical_id:
        return resource_type, text
    return UNKNOWN, _NOWHERE


@lru_cache(maxsize=512)
def marker(resource_type: str) -> int:
    """Key that stands, in the index, for any context of this type; no resource has it."""
    return hash64(f"{resource_type}/")
