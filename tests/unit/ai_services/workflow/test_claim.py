"""Task states against the real record: one claim wins, progress needs the claim, the last word is said once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ai_services.workflow import claim, queue
from ai_services.workflow.claim import TaskLostError
from ai_services.workflow.fairness import in_turn
from ai_services.workflow.priorities import QUEUES
from fhir_server.app import FhirService, migrate
from foramen.kernel.fhir_client import FhirClient
from foramen.kernel.settings import Settings
from terminology import systems
from terminology.codes import ANALYSE_STUDY, RECOMMEND_OPTIONS
from tests.builders.tokens import ORIGIN, bearer, verifier

KINDS = (ANALYSE_STUDY.code, RECOMMEND_OPTIONS.code)


@pytest.fixture
async def fhir(database_url: str, tmp_path: Path) -> AsyncIterator[FhirClient]:
    migrate(database_url)
    service = FhirService(Settings(home=tmp_path, public_url=ORIGIN), database_url, verifier())
    await service.start()
    transport = httpx.ASGITransport(app=service.app)
    async with httpx.AsyncClient(transport=transport, headers=bearer("system/*.cruds")) as http:
        yield FhirClient(ORIGIN, http)
    await service.stop()


async def waiting_tasks(fhir: FhirClient, kinds: Iterable[str]) -> list[dict[str, Any]]:
    return [item.task for item in in_turn(await queue.waiting(fhir, dict.fromkeys(kinds, QUEUES["all"])), {}, {})]


def new_task(**changes: Any) -> dict[str, Any]:
    task: dict[str, Any] = {
        "resourceType": "Task",
        "identifier": [{"system": systems.IDENTIFIER_TASK, "value": "1.2.3|abc"}],
        "status": "requested",
        "intent": "order",
        "code": ANALYSE_STUDY.concept(),
        "focus": {"reference": "ImagingStudy/x"},
        "authoredOn": "2026-11-22T08:00:00Z",
    }
    return {**task, **changes}


async def test_only_one_of_two_workers_gets_a_task(fhir: FhirClient) -> None:
    await fhir.create(new_task())
    waiting = (await waiting_tasks(fhir, KINDS))[0]
    first = await claim.claim(fhir, waiting, "worker-a")
    second = await claim.claim(fhir, waiting, "worker-b")
    assert first is not None
    assert second is None
    stored = await fhir.read(f"Task/{waiting['id']}")
    assert claim.owner_of(stored) == "worker-a"
    assert claim.run_of(stored) == first.run_id
    assert stored["identifier"][0]["value"] == "1.2.3|abc"
    assert await waiting_tasks(fhir, KINDS) == []


async def test_the_oldest_waits_first_and_other_codes_are_not_ours(fhir: FhirClient) -> None:
    await fhir.create(new_task(authoredOn="2026-11-22T09:00:00Z", description="younger"))
    await fhir.create(new_task(authoredOn="2026-11-22T08:00:00Z", description="older"))
    await fhir.create(new_task(code={"text": "something else"}))
    assert [task["description"] for task in await waiting_tasks(fhir, KINDS)] == ["older", "younger"]


async def test_a_kind_that_is_busy_does_not_hide_the_other(fhir: FhirClient) -> None:
    for _ in range(25):
        await fhir.create(new_task(authoredOn="2026-11-22T08:00:00Z"))
    wanted = {"coding": [RECOMMEND_OPTIONS.coding()]}
    await fhir.create(new_task(authoredOn="2026-11-22T09:00:00Z", code=wanted, description="options"))
    found = await waiting_tasks(fhir, [RECOMMEND_OPTIONS.code])
    assert [task["description"] for task in found] == ["options"]


async def test_progress_and_last_word_need_the_claim(fhir: FhirClient) -> None:
    created = await fhir.create(new_task())
    claimed = await claim.claim(fhir, created, "worker-a")
    assert claimed is not None
    task = await claim.report_progress(fhir, claimed.task_id, claimed.run_id, "analysing")
    assert task["businessStatus"]["text"] == "analysing"
    with pytest.raises(TaskLostError):
        await claim.report_progress(fhir, claimed.task_id, "another-run", "analysing")
    await claim.complete(fhir, claimed.task_id, claimed.run_id, "DiagnosticReport", "DiagnosticReport/r1")
    await claim.give_up(
        fhir, claimed.task_id, claimed.run_id, status="failed", code="late", text_zh="晚", text_en="late"
    )
    ended = await fhir.read(f"Task/{claimed.task_id}")
    assert ended["status"] == "completed"
    assert ended["output"][0]["valueReference"]["reference"] == "DiagnosticReport/r1"
    assert "businessStatus" not in ended
    assert "statusReason" not in ended


async def test_a_task_requested_again_is_another_run(fhir: FhirClient) -> None:
    first = await claim.claim(fhir, await fhir.create(new_task()), "worker-a")
    assert first is not None
    await claim.give_up(fhir, first.task_id, first.run_id, status="failed", code="x", text_zh="无", text_en="no")
    failed = await fhir.read(f"Task/{first.task_id}")
    again = await fhir.update({**failed, "status": "requested"}, if_match=failed["meta"]["versionId"])
    second = await claim.claim(fhir, again, "worker-a")
    assert second is not None
    assert second.run_id != first.run_id
    stored = await fhir.read(f"Task/{first.task_id}")
    assert "statusReason" not in stored
    assert [item["value"] for item in stored["identifier"] if item["system"] == systems.IDENTIFIER_RUN] == [
        second.run_id
    ]
