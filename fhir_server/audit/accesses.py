"""What an AuditEvent tells of an access, in the words of reports and of "who saw my record". Pure.

https://hl7.org/fhir/R4/auditevent.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from foramen.kernel.audit_event import OPERATION_NAME

ACCESS_KIND = "https://foramen.example/fhir/CodeSystem/access-kind"
KINDS = {
    "read": "read",
    "search": "searched",
    "write": "written",
    "group": "read or written, several things at once",
    "export": "exported",
    "ai-run": "looked at or written by an AI service",
    "image": "images retrieved or stored",
    "sign-in": "sign-in or token",
    "other": "other",
}
_EXPORTS = frozenset({"export", "bulk-file", "bulk-status"})
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_IMAGING = "foramen dicomweb"
_IDENTITY = "foramen auth"
_BY_CODE = {
    **dict.fromkeys(("read", "vread", "history-instance"), "read"),
    **dict.fromkeys(("search-type", "search-system", "history-type", "history-system"), "search"),
    **dict.fromkeys(("create", "update", "patch", "delete"), "write"),
    **dict.fromkeys(("transaction", "batch"), "group"),
}
_BY_OPERATION = {
    **dict.fromkeys(("everything", "lastn", "access-log", "meta", "validate"), "read"),
    **dict.fromkeys(("import", "meta-add", "meta-delete", "expunge"), "write"),
}
OUTCOMES = {"0": "success", "4": "failed", "8": "refused", "12": "fault"}


@dataclass(frozen=True, slots=True)
class Access:
    """One event: who (reference, account, client, institution), what, how it ended."""

    recorded: str
    kind: str
    outcome: str
    who: str | None
    account: str | None
    client: str | None
    institution: str | None


def access_of(event: dict[str, Any], ai_clients: frozenset[str]) -> Access:
    """Read an AuditEvent, ours or one that another service posted.

    Parameters
    ----------
    ai_clients : OAuth clients that are AI services
    """
    agents = [agent for agent in event.get("agent", []) if isinstance(agent, dict)]
    actor: dict[str, Any] = next((agent for agent in agents if agent.get("requestor")), {})
    named = [str(agent.get("who", {}).get("reference", "")) for agent in agents]
    institution = next((name for name in named if name.startswith("Organization/")), None) or _site(event)
    return Access(
        str(event.get("recorded", "")),
        _kind(event, actor.get("name"), ai_clients),
        OUTCOMES.get(str(event.get("outcome", "0")), "failed"),
        actor.get("who", {}).get("reference"),
        actor.get("altId"),
        actor.get("name"),
        institution,
    )


def _site(event: dict[str, Any]) -> str | None:
    """Return the institution that an event of identity has as its site; elsewhere a site may be any place."""
    source = event.get("source", {})
    site = source.get("site")
    is_ours = source.get("observer", {}).get("display") == _IDENTITY
    return f"Organization/{site}" if is_ours and isinstance(site, str) and _ID.fullmatch(site) else None


def _kind(event: dict[str, Any], client: str | None, ai_clients: frozenset[str]) -> str:
    codings = event.get("subtype", [])
    codes = [str(coding.get("code", "")) for coding in codings]
    operation = next((c.get("code", "") for c in codings if c.get("system") == OPERATION_NAME), None)
    source = event.get("source", {}).get("observer", {}).get("display")
    if source == _IDENTITY:
        return "sign-in"
    if client in ai_clients:
        return "ai-run"
    if operation in _EXPORTS:
        return "export"
    if source == _IMAGING:
        return "image"
    if operation is not None:
        return _BY_OPERATION.get(operation, "other")
    return next((_BY_CODE[code] for code in codes if code in _BY_CODE), "other")
