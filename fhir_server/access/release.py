"""What a patient may see of what an AI made: only what a clinician verified.

Clinical model §6.3-6.4. A resource with the tag AI-GENERATED is shown to a patient once its `status` holds a word that
only a practitioner can write, with a Provenance as verifier (`rules/ai_signoff.py`, the same table). A type that
cannot be searched by `status` (RiskAssessment, DetectedIssue, GuidanceResponse…) shows none of them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fhir_server.rules.ai_signoff import SIGNED_OFF
from fhir_server.search.conditions import AnyOf, AnyPosting, Condition
from fhir_server.search.parameters import r4_parameters
from fhir_server.search.tokens import token_condition
from terminology.codes import AI_GENERATED


@lru_cache(maxsize=256)
def released(resource_type: str) -> Condition:
    """Return what a resource of the type fulfils that a patient may see: not tagged, or signed off."""
    parameters = r4_parameters(resource_type).parameters
    untagged = token_condition(parameters["_tag"], "not", [f"{AI_GENERATED.system}|{AI_GENERATED.code}"])
    words = sorted(SIGNED_OFF.get(resource_type, ()))
    if not words or "status" not in parameters:
        return untagged
    signed = token_condition(parameters["status"], None, words)
    assert isinstance(signed, AnyPosting)  # noqa: S101 - `status` is a code
    return AnyOf((untagged, signed))


def has_no_tag(resource: dict[str, Any]) -> bool:
    """Whether a resource has no tag at all, as most do: then it needs no further look."""
    return not (resource.get("meta") or {}).get("tag")
