"""Who asks, as patients' Consents see them: the record and the gateway must name a caller alike.

https://hl7.org/fhir/R4/consent.html (`provision.actor`)
"""

from __future__ import annotations

from dataclasses import dataclass

from foramen.kernel.access_context import GATEWAY, AccessContext


def names_of(context: AccessContext) -> frozenset[str]:
    """References by which a Consent may name this caller: the user, their institution, the client as a Device."""
    names = {context.fhir_user or "", f"Device/{context.client_id}"}
    if context.institution:
        names.add(f"Organization/{context.institution}")
    return frozenset(names - {""})


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller as Consents see it: the same for all whom they treat alike.

    `opened`: the one Patient (`Patient/id`) whose Consents emergency access lifts. `audits`: a scope names AuditEvents
    for all patients, as auditors' alone do; a patient's refusal of everybody must not hide from them what was done in
    spite of it. `keeps_pixels`: our own gateway, which has to know whose a study is to hide it.
    """

    names: frozenset[str]
    opened: str | None = None
    audits: bool = False
    keeps_pixels: bool = False


def caller_of(context: AccessContext) -> Caller:
    """Return the caller behind a token."""
    opened = f"Patient/{context.break_glass.patient}" if context.break_glass is not None else None
    audits = any(scope.resource_type == "AuditEvent" and scope.context != "patient" for scope in context.scopes)
    return Caller(names_of(context), opened, audits, context.has_scope(GATEWAY))
