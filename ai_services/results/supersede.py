"""Earlier, unverified results of a study give way to new ones; what a person has verified is never touched (stage 5).

https://hl7.org/fhir/R4/valueset-observation-status.html, -request-status.html: cancelled and revoked close.
"""

from __future__ import annotations

from collections.abc import Iterable

from ai_services.results.context import Resource
from terminology.codes import AI_GENERATED

# Resource type → the status that only an unverified result has, and the one that closes it.
_CLOSING = {
    "Observation": ("preliminary", "cancelled"),
    "DiagnosticReport": ("partial", "cancelled"),
    "CarePlan": ("draft", "revoked"),
    "RequestGroup": ("draft", "revoked"),
}


def close_unverified(resources: Iterable[Resource], *, keep: Iterable[str] = ()) -> list[Resource]:
    """Closed copies of the resources that may be superseded, for updates with If-Match.

    Parameters
    ----------
    resources : earlier results as they are stored, each with `meta.versionId`
    keep : business identifiers of the results that take over
    """
    kept = set(keep)
    return [
        {**item, "status": _CLOSING[item["resourceType"]][1]}
        for item in resources
        if item["resourceType"] in _CLOSING
        and item.get("status") == _CLOSING[item["resourceType"]][0]
        and item.get("intent", "option") in ("option", "proposal")
        and is_ai_generated(item)
        and not kept & identifiers(item)
    ]


def is_ai_generated(resource: Resource) -> bool:
    """Whether the resource carries the AI tag; a resource of a person is never superseded."""
    return AI_GENERATED.code in {tag.get("code") for tag in resource.get("meta", {}).get("tag", [])}


def identifiers(resource: Resource) -> set[str]:
    """Values of the business identifiers."""
    return {str(item.get("value")) for item in resource.get("identifier", [])}
