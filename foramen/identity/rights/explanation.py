"""Why an account may, or may not, do something: the decision of the policy, rule by rule, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from foramen.identity.oauth.scopes import resource_scopes
from foramen.identity.people.accounts import Account
from foramen.identity.policy import evaluate
from foramen.identity.rights.explanation_text import REASONS
from foramen.identity.rights.permissions import GRANT, WITHDRAW, Rights, current_changes, rights_of
from foramen.identity.rights.roles import PATIENT
from foramen.kernel.errors import InvalidRequestError
from foramen.kernel.settings import get_settings

HOLDS, REFUSES, IN_QUERY = "holds", "refuses", "in query"
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
_ACTIONS = "cruds"
_IN_QUERY = frozenset({"release", "consent"})


@dataclass(frozen=True, slots=True)
class Line:
    """One rule: its name, `HOLDS`, `REFUSES` or `IN_QUERY` (decided for each resource, inside the query), and why.

    Parameters
    ----------
    word : reason, a word of `explanation_text.REASONS`
    values : names that the words have blanks for
    """

    rule: str
    result: str
    word: str
    values: Mapping[str, str] = field(default_factory=dict)

    def reason(self, language: str = "en") -> str:
        """Say why, in one of the languages of the pages."""
        return REASONS[language][self.word].format(**self.values)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and what it rests on."""

    allowed: bool
    lines: tuple[Line, ...]


def explain(
    connection: Connection,
    account: Account,
    resource_type: str,
    action: str,
    *,
    patient: str | None = None,
    scopes: str | None = None,
    app_patient: str | None = None,
    managed_by: str | None = None,
    institutions: str | None = None,
) -> Explanation:
    """Ask the policy as the account's tokens would be judged now.

    Parameters
    ----------
    resource_type : FHIR resource type
    action : one of ``c r u d s``
    patient : logical id of the Patient asked about
    scopes : those of a token; None: all that the account can get
    app_patient : logical id of the Patient the app was opened for
    managed_by : logical id of the Organization that manages the Patient asked about; None: the record knows it, and the
        query decides
    institutions : whether they divide the record, ``shared`` or ``separate``; None: as this installation is set

    Raises
    ------
    InvalidRequestError
        The type or the action is none.
    """
    if not _TYPE.fullmatch(resource_type) or len(action) != 1 or action not in _ACTIONS:
        raise InvalidRequestError("A resource type and one of the actions c, r, u, d, s are needed")
    rights = rights_of(connection, account)
    changes = current_changes(connection, account.name)
    held = rights.scopes if scopes is None else resource_scopes(scopes)
    question: dict[str, Any] = {
        "role": account.role,
        "granted": sorted(change.permission for change in changes if change.effect == GRANT),
        # What is lent was judged with the lender: `rights` has what is left of it.
        "lent": sorted(rights.permissions) if rights.lenders else [],
        "withdrawn": sorted(change.permission for change in changes if change.effect == WITHDRAW),
        "scopes": [str(scope) for scope in held],
        "patient": account.patient if account.role == PATIENT else app_patient,
        "type": resource_type,
        "action": action,
        "subject": patient,
        "verified": True,
        "consent": None,
        "institutions": institutions or get_settings().institutions,
        "institution": account.institution,
        "managed_by": managed_by or account.institution,
        "break_glass": None,
    }
    in_query = question["institutions"] != "shared" and managed_by is None
    answer = evaluate("decision.answer", question)
    lines = [_line(rule, account, rights, in_query=in_query) for rule in answer["rules"]]
    for change in changes:
        if change.effect == WITHDRAW:
            refuses = not _permitted(answer) and _permitted(_without(question, change.permission))
            told = {"permission": change.permission, "by": change.decided_by}
            lines.append(Line("withdrawn", REFUSES if refuses else HOLDS, "withdrawn", told))
    lines.append(_told("account", not account.disabled))
    return Explanation(bool(answer["allow"]) and not account.disabled, tuple(lines))


def _without(question: dict[str, Any], permission: str) -> dict[str, Any]:
    """Ask as if a permission had not been withdrawn, with the scopes it would give."""
    still = [name for name in question["withdrawn"] if name != permission]
    changed = {**question, "withdrawn": still}
    rights = evaluate("permissions.rights", changed)
    return evaluate("decision.answer", {**changed, "scopes": [*question["scopes"], *rights["scopes"]]})


def _permitted(answer: dict[str, Any]) -> bool:
    return any(rule["rule"] == "permission" and rule["holds"] for rule in answer["rules"])


def _line(rule: dict[str, Any], account: Account, rights: Rights, *, in_query: bool) -> Line:
    name, by = rule["rule"], ", ".join(rule["by"])
    if name in _IN_QUERY:
        return Line(name, IN_QUERY, f"{name}_in_query")
    if name == "institution" and in_query and rule["holds"] and not rights.manages_institutions:
        if account.institution is None:
            return Line(name, IN_QUERY, "institution_in_query_none")
        return Line(name, IN_QUERY, "institution_in_query_own", {"institution": account.institution})
    if name == "permission" and rule["holds"] and rights.lenders:
        return Line(name, HOLDS, "permission_lent", {"by": by, "lenders": ", ".join(rights.lenders)})
    return _told(name, rule["holds"], by=account.role if name == "role" else by)


def _told(name: str, holds: bool, **values: str) -> Line:
    return Line(name, HOLDS if holds else REFUSES, f"{name}_{'holds' if holds else 'refuses'}", values)
