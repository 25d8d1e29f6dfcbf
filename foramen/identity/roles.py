"""What each role may be granted at most; a token holds the requested ∩ registered ∩ these scopes.

Resource scopes are written for context `user/`; `patient/` scopes are allowed for the same types and actions.
Whoever is not named here is granted nothing.
"""

from __future__ import annotations

from foramen.kernel.access_context import Scope, parse_scopes

PHYSICIAN = "physician"
RESEARCHER = "researcher"
ENGINEER = "engineer"
SYSTEM_ADMINISTRATOR = "system-administrator"
INSTITUTION_ADMINISTRATOR = "institution-administrator"
PATIENT = "patient"
SERVICE = "service"

_PHYSICIAN_WRITES = (
    "user/Observation.u user/DiagnosticReport.u user/CarePlan.cu user/Provenance.c "
    "user/QuestionnaireResponse.cru user/Task.cru"
)
_DEFINITIONS = "user/CodeSystem.rs user/ValueSet.rs user/ConceptMap.rs user/StructureDefinition.rs user/Library.rs"
_DIRECTORY = "user/Organization.rs user/Practitioner.rs user/PractitionerRole.rs user/Endpoint.rs user/Device.rs"

ROLE_SCOPES: dict[str, str] = {
    PHYSICIAN: f"user/*.rs {_PHYSICIAN_WRITES}",
    # Pseudonymised data are not offered yet, and identified data are not for research: nothing.
    RESEARCHER: "",
    # Engineers never read identified data (contract module 7).
    ENGINEER: f"user/Device.rs user/Endpoint.rs {_DEFINITIONS}",
    SYSTEM_ADMINISTRATOR: f"user/AuditEvent.rs {_DIRECTORY} {_DEFINITIONS}",
    INSTITUTION_ADMINISTRATOR: f"{_DIRECTORY} {_DEFINITIONS}",
    # A patient reaches the own compartment only; a user/ scope would reach everybody.
    PATIENT: "patient/*.rs",
    SERVICE: "",
}
ROLES = tuple(ROLE_SCOPES)


def role_scopes(role: str) -> tuple[Scope, ...]:
    """Return what a role may be granted, with `patient/` beside each `user/` scope; an unknown role gets nothing."""
    scopes = parse_scopes(ROLE_SCOPES.get(role, ""))
    narrower = tuple(Scope("patient", item.resource_type, item.actions) for item in scopes if item.context == "user")
    return scopes + narrower
