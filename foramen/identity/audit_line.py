"""An AuditEvent as one line for people: when, who, what, on whom, how it ended. Pure.

https://hl7.org/fhir/R4/auditevent.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class AuditLine:
    """What one line shows; empty where the event says nothing.

    `recorded` is UTC, to the second. `concerns` holds references and names of accounts, never a patient's name.
    """

    id: str
    recorded: str
    who: str
    app: str
    address: str
    what: str
    concerns: str
    outcome: str
    reason: str
    emergency: bool


def audit_line(event: dict[str, Any]) -> AuditLine:
    """Return the line of an AuditEvent."""
    agents = event.get("agent", [])
    requestor: dict[str, Any] = next((agent for agent in agents if agent.get("requestor")), agents[0] if agents else {})
    who = [str(agent["altId"]) for agent in agents if agent.get("altId")]
    concerns = [_named(entity) for entity in event.get("entity", [])]
    return AuditLine(
        id=str(event.get("id", "")),
        recorded=str(event.get("recorded", ""))[:19].replace("T", " "),
        who=", ".join(who),
        app=str(requestor.get("name", "")),
        address=str(requestor.get("network", {}).get("address", "")),
        what=" ".join(display for _, display in kinds_of(event)),
        concerns=", ".join(filter(None, concerns)),
        outcome=str(event.get("outcome", "")),
        reason=str(event.get("outcomeDesc", "")),
        emergency=any(
            coding.get("code") == "BTG"
            for purpose in event.get("purposeOfEvent", [])
            for coding in purpose.get("coding", [])
        ),
    )


def kinds_of(event: dict[str, Any]) -> list[tuple[str, str]]:
    """Return code and display (the code again where there is none) of what an AuditEvent records."""
    codings = event.get("subtype") or [event.get("type", {})]
    found = [(str(one.get("code", "")), str(one.get("display") or one.get("code", ""))) for one in codings]
    return [(code, display) for code, display in found if display]


def _named(entity: dict[str, Any]) -> str:
    what = entity.get("what", {})
    reference = what.get("reference") or what.get("identifier", {}).get("value")
    return str(reference or ("" if entity.get("name") == "trace" else entity.get("name", "")))
