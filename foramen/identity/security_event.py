"""AuditEvents of signing in and of tokens: who, from where, how it ended; never a password, a token or a typed name.

https://hl7.org/fhir/R4/auditevent.html (event codes of DICOM PS3.16 CID 400 and 403)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from foramen.kernel.audit_event import mark_break_glass

_DCM = "http://dicom.nema.org/resources/ontology/DCM"
SIGN_IN = ("110122", "Login")
SIGN_OUT = ("110123", "Logout")
# DCM has no code for issuing a token: the grant is named with the words of RFC 6749.
_OAUTH = "urn:ietf:rfc:6749"
_PERSON = {"system": "http://terminology.hl7.org/CodeSystem/audit-entity-type", "code": "1", "display": "Person"}
_SECURITY_USER = {
    "system": "http://terminology.hl7.org/CodeSystem/object-role",
    "code": "11",
    "display": "Security User Entity",
}
SUCCESS, REFUSED, FAILED = "0", "4", "8"
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """One event to record.

    `what` is `SIGN_IN`, `SIGN_OUT` or a word of RFC 6749 (a grant type, or the endpoint that refused).
    `account` and `client_id` are only ever ids that exist here; what somebody typed is not repeated.
    `concerns`: the account that is acted on; `lenders`: whose permissions it makes use of; `break_glass`: id of the
    emergency access it belongs to; `institutions`: those of `account` and `concerns`, in this order; None: not known
    yet, `audit_outbox.record` looks.
    """

    what: tuple[str, str] | str
    outcome: str
    account: str | None = None
    client_id: str | None = None
    fhir_user: str | None = None
    patient: str | None = None
    address: str | None = None
    reason: str | None = None
    concerns: str | None = None
    lenders: tuple[str, ...] = ()
    break_glass: str | None = None
    institutions: tuple[str, ...] | None = None

    def resource(self, recorded: datetime) -> dict[str, Any]:
        """Build the AuditEvent."""
        if isinstance(self.what, tuple):
            subtype = {"system": _DCM, "code": self.what[0], "display": self.what[1]}
        else:
            subtype = {"system": _OAUTH, "code": self.what}
        agent: dict[str, Any] = {"altId": self.account or self.client_id or "unknown", "requestor": True}
        if self.client_id:
            agent["name"] = self.client_id
        if self.fhir_user:
            agent["who"] = {"reference": self.fhir_user}
        if self.address:
            agent["network"] = {"address": self.address, "type": "2"}
        event: dict[str, Any] = {
            "resourceType": "AuditEvent",
            "type": {"system": _DCM, "code": "110114", "display": "User Authentication"},
            "subtype": [subtype],
            "action": "E",
            "recorded": recorded.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "outcome": self.outcome,
            "agent": [agent, *({"altId": name, "requestor": False} for name in self.lenders)],
            "source": {"observer": {"display": "foramen auth"}, **self._site()},
        }
        mark_break_glass(event, self.break_glass)
        if self.reason:
            event["outcomeDesc"] = self.reason
        entities: list[dict[str, Any]] = []
        if self.patient:
            entities.append({"what": {"reference": f"Patient/{self.patient}"}})
        if self.concerns:
            entities.append({"type": _PERSON, "role": _SECURITY_USER, "name": self.concerns})
        if entities:
            event["entity"] = entities
        return event

    def _site(self) -> dict[str, str]:
        """Return the institution it is counted and searched by (`AuditEvent?site=ID`): of who acts, else acted on."""
        named = next((name for name in self.institutions or () if _ID.fullmatch(name)), None)
        return {"site": named} if named else {}
