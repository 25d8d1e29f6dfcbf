"""The surgeon's two decisions as transactions: verify the findings, choose an option. Pure builders.

Sign-off: clinical model §6.3 (status workflow) and §6.4 (Provenance); the apps build the same shapes in TypeScript.
"""

from __future__ import annotations

import uuid
from typing import Any

from terminology import systems


def _provenance(targets: list[str], practitioner: str, activity: str, reason: str, recorded: str) -> dict[str, Any]:
    resource = {
        "resourceType": "Provenance",
        "target": [{"reference": target} for target in targets],
        "recorded": recorded,
        "activity": {"text": activity},
        "reason": [{"text": reason}],
        "agent": [
            {
                "type": {"coding": [{"system": systems.PROVENANCE_AGENT, "code": "verifier"}]},
                "who": {"reference": practitioner},
            }
        ],
    }
    return {"resource": resource, "request": {"method": "POST", "url": "Provenance"}}


def _put(resource: dict[str, Any]) -> dict[str, Any]:
    url = f"{resource['resourceType']}/{resource['id']}"
    return {
        "fullUrl": url,
        "resource": resource,
        "request": {"method": "PUT", "url": url, "ifMatch": f'W/"{resource["meta"]["versionId"]}"'},
    }


def verify_bundle(
    report: dict[str, Any], observations: list[dict[str, Any]], practitioner: str, reason: str, recorded: str
) -> dict[str, Any]:
    """Set report and findings `final` with the practitioner's Provenance; If-Match guards against a newer version."""
    signed = [{**item, "status": "final"} for item in (report, *observations)]
    targets = [f"{item['resourceType']}/{item['id']}" for item in signed]
    entries = [*map(_put, signed), _provenance(targets, practitioner, "verify", reason, recorded)]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def choose_bundle(option: dict[str, Any], practitioner: str, reason: str, recorded: str) -> dict[str, Any]:
    """Issue the chosen option again as an active plan; the proposal itself stays as it was."""
    kept = ("resourceType", "category", "title", "description", "subject", "supportingInfo")
    plan = {key: option[key] for key in kept if key in option}
    plan |= {
        "meta": {"tag": option["meta"]["tag"]},
        "status": "active",
        "intent": "plan",
        "basedOn": [{"reference": f"CarePlan/{option['id']}"}],
        "author": {"reference": practitioner},
        "created": recorded,
    }
    full_url = f"urn:uuid:{uuid.uuid4()}"
    entry = {"fullUrl": full_url, "resource": plan, "request": {"method": "POST", "url": "CarePlan"}}
    signature = _provenance([full_url], practitioner, "choose-option", reason, recorded)
    return {"resourceType": "Bundle", "type": "transaction", "entry": [entry, signature]}
