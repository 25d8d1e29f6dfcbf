"""The queue in the real record: what waits is found by rank and institution, however many Tasks hide it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ai_services.workflow import claim, queue
from ai_services.workflow.fairness import in_turn
from ai_services.workflow.priorities import EXPEDITED, QUEUES, Rank, for_batch
from fhir_server.app import FhirService, migrate
from foramen.kernel.fhir_client import FhirClient
from foramen.kernel.settings import Settings
from terminology.codes import ANALYSE_STUDY, RECOMMEND_OPTIONS
from tests.builders.tokens import ORIGIN, bearer, verifier

KINDS = (ANALYSE_STUDY.code, RECOMMEND_OPTIONS.code)
ALL = dict.fromkeys(KINDS, QUEUES["all"])


@pytest.fixture
async def fhir(database_url: str, tmp_path: Path) -> AsyncIterator[FhirClient]:
    migrate(database_url)
    service = FhirService(Settings(home=tmp_path, public_url=ORIGIN), database_url, verifier())
    await service.start()
    transport = httpx.ASGITransport(app=service.app)
    async with httpx.AsyncClient(transport=transport, headers=bearer("system/*.cruds")) as http:
        yield FhirClient(ORIGIN, http)
    await service.stop()


def task(name: str, *, at: int = 0, patient: str = "a", **changes: Any) -> dict[str, Any]:
    return {
        "resourceType": "Task",
        "id": name,
        "status": "requested",
        "intent": "order",
        "code": ANALYSE_STUDY.concept(),
        "for": {"reference": f"Patient/{patient}"},
        "authoredOn": f"2026-11-22T08:{at // 60:02d}:{at % 60:02d}Z",
        **changes,
    }


async def put(fhir: FhirClient, *resources: dict[str, Any]) -> None:
    entries = [
        {"resource": item, "request": {"method": "PUT", "url": f"{item['resourceType']}/{item['id']}"}}
        for item in resources
    ]
    await fhir.transaction({"resourceType": "Bundle", "type": "transaction", "entry": entries})


async def institutions(fhir: FhirClient) -> None:
    """Patients a and b of two institutions, c of none."""
    await put(
        fhir,
        *({"resourceType": "Organization", "id": name, "name": name} for name in ("north", "south")),
        {"resourceType": "Patient", "id": "a", "managingOrganization": {"reference": "Organization/north"}},
        {"resourceType": "Patient", "id": "b", "managingOrganization": {"reference": "Organization/south"}},
        {"resourceType": "Patient", "id": "c"},
    )


def names(items: list[queue.Waiting]) -> list[str]:
    return [str(item.task["id"]) for item in items]


async def test_few_tasks_are_all_told_with_rank_and_institution(fhir: FhirClient) -> None:
    await institutions(fhir)
    await put(
        fhir,
        task("old", at=1),
        task("emergency", at=9, patient="b", priority="stat"),
        for_batch(task("batch", at=0, patient="c")),
        task("options", at=2, code=RECOMMEND_OPTIONS.concept()),
        task("other", code={"text": "something else"}),
        task("taken", status="in-progress", patient="b"),
    )
    found = {item.task["id"]: (item.rank, item.institution) for item in await queue.waiting(fhir, ALL)}
    assert found == {
        "old": (Rank.ROUTINE, "Organization/north"),
        "emergency": (Rank.STAT, "Organization/south"),
        "batch": (Rank.BATCH, ""),
        "options": (Rank.ROUTINE, "Organization/north"),
    }
    live = await queue.waiting(fhir, {ANALYSE_STUDY.code: QUEUES["live"]})
    assert sorted(names(live)) == ["emergency", "old"]
    assert names(await queue.waiting(fhir, dict.fromkeys(KINDS, QUEUES["batch"]))) == ["batch"]
    assert names(await queue.waiting(fhir, dict.fromkeys(KINDS, EXPEDITED))) == ["emergency"]
    (busy,) = await queue.in_work(fhir)
    assert (busy.task["id"], busy.institution) == ("taken", "Organization/south")
    assert queue.by_institution([busy]) == {"Organization/south": 1}


async def test_a_flood_hides_no_emergency_no_institution_and_no_other_kind(fhir: FhirClient) -> None:
    await institutions(fhir)
    await put(
        fhir,
        *(task(f"flood-{number}", at=number) for number in range(120)),
        task("of-south", at=300, patient="b"),
        task("of-nobody", at=301, patient="c"),
        task("emergency", at=302, priority="asap"),
        task("options", at=303, code=RECOMMEND_OPTIONS.concept()),
        for_batch(task("batch", at=0, patient="b")),
    )
    found = await queue.waiting(fhir, ALL)
    assert {"of-south", "of-nobody", "emergency", "options"} <= set(names(found))
    analyses = [item for item in found if claim.code_of(item.task) == ANALYSE_STUDY.code]
    first = names(in_turn(analyses, {}, {}))[:4]
    assert first[0] == "emergency"
    assert {"of-south", "of-nobody", "flood-0"} >= set(first[1:3])
    # Nobody's Tasks may be the flood, too.
    await put(fhir, *(task(f"flood-{number}", at=number, patient="c") for number in range(120)))
    assert {"of-south", "emergency"} <= set(names(await queue.waiting(fhir, ALL)))


async def test_a_task_of_a_lost_worker_is_taken_over_once_under_another_run(fhir: FhirClient) -> None:
    await put(fhir, {"resourceType": "Patient", "id": "a"}, for_batch(task("t")))
    (item,) = await queue.waiting(fhir, ALL)
    first = await claim.claim(fhir, item.task, "worker-a")
    (lost,) = await queue.in_work(fhir)
    second = await claim.take_over(fhir, lost.task, "worker-b")
    assert await claim.take_over(fhir, lost.task, "worker-c") is None
    assert first is not None
    assert second is not None
    assert claim.run_number(second.run_id) == 2
    with pytest.raises(claim.TaskLostError):
        await claim.report_progress(fhir, "t", first.run_id, "analysing")
    await claim.complete(fhir, "t", first.run_id, "DiagnosticReport", "DiagnosticReport/of-the-lost")
    assert (await fhir.read("Task/t"))["status"] == "in-progress"
    await claim.complete(fhir, "t", second.run_id, "DiagnosticReport", "DiagnosticReport/r")
    ended = await fhir.read("Task/t")
    assert ended["output"][0]["valueReference"]["reference"] == "DiagnosticReport/r"
    assert "performerType" not in ended  # asked for again by a person, it is live work
