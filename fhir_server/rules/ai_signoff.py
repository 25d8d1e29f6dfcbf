"""Who may finalise what an AI proposed: a person, in the same transaction that says so. Pure functions.

Clinical model §6.3, §6.4. An AI-tagged resource may take a signed-off status only when the caller is a Practitioner and
the transaction holds a Provenance by that Practitioner as `verifier` whose target is that resource.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InvalidResourceError, Issue
from terminology.codes import AI_GENERATED

SIGNED_OFF = {
    "Observation": frozenset({"final", "amended", "corrected"}),
    "DiagnosticReport": frozenset({"preliminary", "final", "amended", "corrected", "appended"}),
    "CarePlan": frozenset({"active", "completed"}),
    "RiskAssessment": frozenset({"final", "amended", "corrected"}),
    "RequestGroup": frozenset({"active", "completed"}),
}
_RETRACTED = "entered-in-error"
_CLOSED = frozenset({"cancelled", "revoked", _RETRACTED})


def is_ai_generated(resource: dict[str, Any] | None) -> bool:
    """Whether a resource carries the tag AI-GENERATED."""
    tags = ((resource or {}).get("meta") or {}).get("tag") or []
    return any(tag.get("system") == AI_GENERATED.system and tag.get("code") == AI_GENERATED.code for tag in tags)


def verified_targets(provenances: Iterable[dict[str, Any]], practitioner: str) -> set[str]:
    """References that a transaction's Provenances declare verified by this practitioner."""
    return {
        str(target.get("reference", "")).partition("/_history/")[0]
        for provenance in provenances
        if any(_is_verifier(agent, practitioner) for agent in provenance.get("agent", ()))
        for target in provenance.get("target", ())
    }


def _is_verifier(agent: dict[str, Any], practitioner: str) -> bool:
    codings = (agent.get("type") or {}).get("coding") or []
    return (agent.get("who") or {}).get("reference") == practitioner and any(
        coding.get("code") == "verifier" for coding in codings
    )


def check_signoff(
    old: dict[str, Any] | None,
    new: dict[str, Any],
    reference: str,
    context: AccessContext,
    provenances: Iterable[dict[str, Any]],
) -> None:
    """Refuse a write that finalises AI output without a person, or that hides that an AI made it.

    Parameters
    ----------
    old, new : the version before (None when created) and the one to be written
    reference : `Type/id` of the resource
    context : who writes
    provenances : the Provenance resources of the same transaction, references resolved

    Raises
    ------
    InvalidResourceError
        422 `business-rule` with the element that is refused.
    """
    resource_type = new["resourceType"]
    if is_ai_generated(old) and not is_ai_generated(new):
        raise _refusal("The tag AI-GENERATED cannot be removed", f"{resource_type}.meta.tag")
    if not is_ai_generated(new):
        return
    status = new.get("status")
    if (old or {}).get("status") in _CLOSED and status in SIGNED_OFF.get(resource_type, ()):
        raise _refusal("It was superseded or withdrawn and cannot be signed off", f"{resource_type}.status")
    signed = SIGNED_OFF.get(resource_type, frozenset())
    unsigns = is_ai_generated(old) and (old or {}).get("status") in signed
    needs_person = (
        unsigns or status in SIGNED_OFF.get(resource_type, ()) or (status == _RETRACTED and resource_type in SIGNED_OFF)
    )
    if not needs_person:
        return
    practitioner = context.practitioner
    if practitioner is None:
        raise _refusal("Only a practitioner may sign off what an AI proposed", f"{resource_type}.status")
    if reference not in verified_targets(provenances, practitioner):
        text = "Signing off needs a Provenance by you as verifier of this resource in the same transaction"
        raise _refusal(text, f"{resource_type}.status")


def _refusal(text: str, expression: str) -> InvalidResourceError:
    return InvalidResourceError(text, issue_code="business-rule", issues=(Issue("business-rule", text, (expression,)),))
