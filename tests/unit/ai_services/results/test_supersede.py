"""New results close unverified older ones; what a person touched stays as it is."""

from __future__ import annotations

from typing import Any

import pytest

from ai_services.results.supersede import close_unverified
from terminology.codes import AI_GENERATED


def stored(resource_type: str, status: str, **more: Any) -> dict[str, Any]:
    meta = {"versionId": "1", "tag": [AI_GENERATED.coding()]}
    identifier = [{"system": "s", "value": more.pop("value", "old")}]
    return {"resourceType": resource_type, "id": "x", "meta": meta, "identifier": identifier, "status": status, **more}


@pytest.mark.parametrize(
    ("resource", "closed"),
    [
        (stored("DiagnosticReport", "partial"), "cancelled"),
        (stored("Observation", "preliminary"), "cancelled"),
        (stored("CarePlan", "draft", intent="option"), "revoked"),
        (stored("RequestGroup", "draft", intent="proposal"), "revoked"),
    ],
)
def test_unverified_results_are_closed(resource: dict[str, Any], closed: str) -> None:
    assert [item["status"] for item in close_unverified([resource])] == [closed]
    assert close_unverified([resource])[0]["meta"]["versionId"] == "1"


@pytest.mark.parametrize(
    "resource",
    [
        stored("DiagnosticReport", "final"),
        stored("DiagnosticReport", "entered-in-error"),
        stored("Observation", "amended"),
        stored("CarePlan", "active", intent="plan"),
        stored("CarePlan", "draft", intent="plan"),
        {**stored("Observation", "preliminary"), "meta": {"versionId": "1"}},
    ],
)
def test_verified_chosen_or_human_results_are_never_touched(resource: dict[str, Any]) -> None:
    assert close_unverified([resource]) == []


def test_the_results_that_take_over_are_kept() -> None:
    assert close_unverified([stored("DiagnosticReport", "partial", value="new")], keep=["new"]) == []
