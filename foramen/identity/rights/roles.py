"""What each role may be granted at most; a token holds the requested ∩ registered ∩ these scopes.

The roles, their permissions and scopes are data of the policy (`policies/permissions.rego`); an unknown role has none.
"""

from __future__ import annotations

from functools import cache

from foramen.identity.oauth.scopes import Permitted
from foramen.identity.policy import evaluate
from foramen.kernel.access_context import Scope, parse_scopes

PHYSICIAN = "physician"
RESEARCHER = "researcher"
ENGINEER = "engineer"
SYSTEM_ADMINISTRATOR = "system-administrator"
INSTITUTION_ADMINISTRATOR = "institution-administrator"
ASSISTANT = "assistant"
PATIENT = "patient"
SERVICE = "service"
ROLES = (PHYSICIAN, RESEARCHER, ENGINEER, SYSTEM_ADMINISTRATOR, INSTITUTION_ADMINISTRATOR, ASSISTANT, PATIENT, SERVICE)
"""Names only; a test compares them with the policy."""
_ORDER = "cruds"


@cache
def permitted_scopes(allowed: tuple[str, ...]) -> Permitted:
    """Turn scopes of the policy into what may be granted: one of a kind, with `patient/` beside each `user/` scope."""
    actions: dict[tuple[str, str], set[str]] = {}
    for scope in parse_scopes(" ".join(allowed)):
        actions.setdefault((scope.context, scope.resource_type), set()).update(scope.actions)
    scopes = tuple(Scope(*kind, "".join(a for a in _ORDER if a in granted)) for kind, granted in actions.items())
    narrower = (Scope("patient", item.resource_type, item.actions) for item in scopes if item.context == "user")
    return Permitted(scopes + tuple(item for item in narrower if item not in scopes))


def role_scopes(role: str) -> tuple[Scope, ...]:
    """Return what a role may be granted, with `patient/` scopes beside `user/` scopes; an unknown role gets nothing."""
    answer = evaluate("permissions.rights", {"role": role, "granted": [], "lent": [], "withdrawn": []})
    return permitted_scopes(tuple(answer["scopes"]))
