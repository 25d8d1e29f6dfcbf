"""What events tell of accesses, and how they are counted. SYNTHETIC data."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_server.audit.accesses import KINDS, access_of
from fhir_server.audit.usage import Usage, UsageReport
from foramen.identity.security_event import REFUSED, SIGN_IN, SecurityEvent
from foramen.kernel.access_context import AccessContext
from foramen.kernel.audit_event import audit_event

_AI = frozenset({"foramen-worker"})
_CHEN = AccessContext("dr-chen", "result-review", (), fhir_user="Practitioner/chen", institution="north")
_WORKER = AccessContext("foramen-worker", "foramen-worker", ())


def event(interaction: str, context: AccessContext | None = _CHEN, **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"source": "fhir", "status": 200, "recorded": datetime(2026, 11, 22, tzinfo=UTC)}
    return audit_event(interaction=interaction, context=context, trace_id="t", **{**given, **more})


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (event("read"), "read"),
        (event("search-type"), "search"),
        (event("patch"), "write"),
        (event("transaction"), "group"),
        (event("operation", operation="export"), "export"),
        (event("operation", operation="bulk-file"), "export"),
        (event("operation", operation="everything"), "read"),
        (event("operation", operation="reindex"), "other"),
        (event("read", _WORKER), "ai-run"),
        (event("retrieve", source="dicomweb"), "image"),
        (event("anything", source="auth"), "sign-in"),
        ({"resourceType": "AuditEvent"}, "other"),
    ],
)
def test_kinds(given: dict[str, Any], kind: str):
    assert access_of(given, _AI).kind == kind
    assert kind in KINDS


@pytest.mark.parametrize(("status", "outcome"), [(200, "success"), (404, "failed"), (403, "refused"), (500, "fault")])
def test_outcomes(status: int, outcome: str):
    assert access_of(event("read", status=status), _AI).outcome == outcome


def test_the_institution_is_an_agent_unless_it_is_no_id():
    assert access_of(event("read"), _AI).institution == "Organization/north"
    odd = AccessContext("a", "c", (), institution="no id; DROP")
    assert len(event("read", odd)["agent"]) == 1


def test_the_institution_of_a_sign_in_is_the_site_of_its_event():
    """What identity records names it there: of who was refused, and of accounts that are gone by now, too."""
    refused = SecurityEvent(SIGN_IN, REFUSED, account="gone", institutions=("north",)).resource(datetime.now(UTC))
    usage = UsageReport({}, _AI)
    usage.add(refused)
    assert usage.rows("north") == [
        {"institution": "north", "role": "service", "app": "", "action": "sign-in", "outcome": "failed", "count": 1}
    ]
    elsewhere = {**refused, "source": {"site": "north", "observer": {"display": "somebody else's system"}}}
    odd = {**refused, "source": {**refused["source"], "site": "no id; DROP"}}
    assert access_of(elsewhere, _AI).institution is access_of(odd, _AI).institution is None


def test_counts_by_institution_role_app_action_outcome():
    usage = UsageReport({"dr-chen": Usage("physician", "south"), "lee": Usage("researcher", "south")}, _AI)
    for given in (event("read"), event("vread"), event("read", _WORKER), event("read", None, status=401)):
        usage.add(given)
    usage.add(event("search-type", AccessContext("lee", "notebook", ())))
    rows = usage.rows()
    assert [tuple(row.values()) for row in rows] == [
        ("", "ai-service", "foramen-worker", "ai-run", "success", 1),
        ("", "not signed in", "", "read", "refused", 1),
        ("north", "physician", "result-review", "read", "success", 2),
        ("south", "researcher", "notebook", "search", "success", 1),
    ]
    assert usage.rows("north") == [rows[2]]
    assert usage.rows("nowhere") == []
