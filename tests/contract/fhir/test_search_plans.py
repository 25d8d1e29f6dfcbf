"""The same answers by whichever way a search is worked on: bounds that large records reach are lowered to nothing."""

from __future__ import annotations

import pytest

from fhir_server.store import arranging, walking
from tests.contract.fhir.api import Api
from tests.contract.fhir.test_search import CASES, RESOURCES

__all__ = ["RESOURCES"]  # what fixture `found` stores


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every chain leads to too many, every condition is unselective, every batch is one resource."""
    monkeypatch.setattr(arranging, "MAX_KEYS", 0)
    monkeypatch.setattr(arranging, "MAX_PATIENTS", 0)
    monkeypatch.setattr(arranging, "MAX_READ", 0)
    monkeypatch.setattr(arranging, "_ENOUGH", 0)
    monkeypatch.setattr(arranging, "_counts", {})
    monkeypatch.setattr(walking, "_FIRST", 1)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(("query", "expected"), CASES)
async def test_matches_when_nothing_is_small(found: Api, query: str, expected: str) -> None:
    wanted = sorted(expected.split())
    assert sorted(await found.ids(query)) == wanted
    assert sorted(await found.ids(f"{query}&_count=1")) == wanted
    assert sorted(await found.ids(f"{query}&_sort=_id&_count=2")) == wanted
    assert (await found.get(f"/fhir/{query}&_summary=count")).json()["total"] == len(wanted)
