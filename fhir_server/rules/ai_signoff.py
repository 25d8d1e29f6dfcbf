"""Who may finalise what an AI proposed: a person, in the same transaction that says so. Pure functions.

Clinical model §6.3, §6.4. An AI-tagged resource may take a signed-off status only when the caller is a Practitioner and
the transaction holds a Provenance by that Practitioner as `verifier` whose target is that resource. For the types that
the pipeline writes a table says which words those are; of every other type each word that is not known to be harmless
is one. What a person signed, and the signature, only a person takes away.
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
"""Signed-off words of `status`, for the types that the pipeline writes."""
_ELEMENTS = ("status", "docStatus", "lifecycleStatus", "verificationStatus")
_RETRACTED = "entered-in-error"
_CLOSED = frozenset({"cancelled", "revoked", _RETRACTED})
_HARMLESS = _CLOSED | frozenset(
    (
        # Proposals and drafts.
        *("draft", "proposed", "planned", "registered", "preliminary", "partial", "requested", "received", "pending"),
        *("unconfirmed", "provisional", "differential", "unknown"),
        # Work that goes on, and its end without a result.
        *("preparation", "in-progress", "rejected", "failed", "failure"),
        # GuidanceResponse: the service itself ran, and may lack something.
        *("success", "data-requested", "data-required"),
        # DocumentReference, List, ImagingStudy, Specimen: it is there, which says nothing of what it holds.
        *("current", "superseded", "available"),
    )
)
"""Words with which a resource of any other type claims nothing that a person has to answer for."""
_EXEMPT = frozenset({"Device"})
"""`Device.status` active says that a model is in use, and nothing about a patient: the pipeline names its models so.
Task is not exempt: those of the worker carry no AI tag (people and the archive write them), one with it is gated."""
_NEEDS_VERIFICATION_STATUS = frozenset({"Condition", "AllergyIntolerance"})
"""Without the element (it is optional) such a resource reads like a diagnosis."""


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
    if old is not None and is_signature(old) and context.practitioner is None:
        raise _refusal("Only a practitioner may change a signature", f"{resource_type}.agent")
    if is_ai_generated(old) and not is_ai_generated(new):
        raise _refusal("The tag AI-GENERATED cannot be removed", f"{resource_type}.meta.tag")
    if not is_ai_generated(new) or resource_type in _EXEMPT:
        return
    signed = _signed_off(new)
    if signed is not None and old is not None and _says(old, _CLOSED):
        raise _refusal("It was superseded or withdrawn and cannot be signed off", f"{resource_type}.{signed}")
    unsigns = _signed_off(old) if old is not None and is_ai_generated(old) else None
    element = signed or unsigns or _says(new, frozenset((_RETRACTED,)))
    if element is None:
        return
    practitioner = context.practitioner
    if practitioner is None:
        raise _refusal("Only a practitioner may sign off what an AI proposed", f"{resource_type}.{element}")
    if reference not in verified_targets(provenances, practitioner):
        text = "Signing off needs a Provenance by you as verifier of this resource in the same transaction"
        raise _refusal(text, f"{resource_type}.{element}")


def check_deletion(old: dict[str, Any], context: AccessContext) -> None:
    """Refuse to delete what a practitioner signed off, and a practitioner's signature, by anybody but a practitioner.

    Raises
    ------
    InvalidResourceError
        422 `business-rule`.
    """
    if context.practitioner is not None:
        return
    resource_type = old["resourceType"]
    if is_signature(old):
        raise _refusal("Only a practitioner may delete a signature", f"{resource_type}.agent")
    element = _signed_off(old) if is_ai_generated(old) and resource_type not in _EXEMPT else None
    if element is not None:
        raise _refusal("Only a practitioner may delete what was signed off", f"{resource_type}.{element}")


def is_signature(resource: dict[str, Any]) -> bool:
    """Whether it is a Provenance by which a practitioner verified something."""
    return resource.get("resourceType") == "Provenance" and any(
        _is_verifier(agent, who)
        for agent in resource.get("agent", ())
        if (who := str((agent.get("who") or {}).get("reference"))).startswith("Practitioner/")
    )


def _signed_off(resource: dict[str, Any]) -> str | None:
    """Return the element that says that a person answers for it, or None."""
    resource_type = resource["resourceType"]
    if resource_type in SIGNED_OFF:
        return _says(resource, SIGNED_OFF[resource_type])
    if resource_type in _NEEDS_VERIFICATION_STATUS and "verificationStatus" not in resource:
        return "verificationStatus"
    return next((name for name in _ELEMENTS if not _words(resource.get(name)) <= _HARMLESS), None)


def _says(resource: dict[str, Any], words: frozenset[str]) -> str | None:
    """Return the first of the status elements that holds one of these words."""
    return next((name for name in _ELEMENTS if _words(resource.get(name)) & words), None)


def _words(value: Any) -> frozenset[str]:
    """Codes of a code or CodeableConcept; one that has text alone says nothing that is known, so an empty one."""
    if isinstance(value, dict):
        codings = [item for item in value.get("coding") or () if isinstance(item, dict)]
        return frozenset(str(item.get("code", "")) for item in codings) or frozenset(("",))
    return frozenset((value,)) if isinstance(value, str) else frozenset()


def _refusal(text: str, expression: str) -> InvalidResourceError:
    return InvalidResourceError(text, issue_code="business-rule", issues=(Issue("business-rule", text, (expression,)),))
