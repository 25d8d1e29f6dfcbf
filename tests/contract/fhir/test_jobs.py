"""Durable jobs: committed at submit, taken over after kill -9, cancelled, owned, failed in words, removed in time."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from fhir_server.app import migrate
from fhir_server.jobs.job import Job, JobState
from fhir_server.jobs.runner import JobRunner
from fhir_server.settings import FhirSettings
from foramen.kernel.access_context import AccessContext, parse_scopes
from foramen.kernel.errors import ForbiddenError, InvalidRequestError, NotFoundError, ThrottledError, UpstreamError
from tests.contract.fhir.job_process import LIMITS, count

SCRIPT = Path(__file__).with_name("job_process.py")
OWNER = AccessContext("anna", "app", parse_scopes("system/*.rs"), "system/*.rs", patient="p1")
OTHER = AccessContext("bert", "app", parse_scopes("system/*.cruds"), "system/*.cruds")
ADMINISTRATOR = AccessContext("root", "cli", (), "foramen/admin")


@pytest.fixture
def url(database_url: str) -> str:
    migrate(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE counted (job text, number integer)")
    return database_url


@asynccontextmanager
async def runner_of(
    url: str, limits: FhirSettings = LIMITS, **kinds: Callable[[Job], Awaitable[None]]
) -> AsyncIterator[JobRunner]:
    runner = JobRunner(url, limits)
    for kind, run in kinds.items():
        runner.register(kind, run)
    await runner.start()
    try:
        yield runner
    finally:
        await runner.stop()


async def until(runner: JobRunner, job_id: str, status: str, timeout_s: float = 15) -> JobState:
    for _ in range(int(timeout_s / 0.05)):
        state = await runner.find(job_id)
        if state is not None and state.status == status:
            return state
        await asyncio.sleep(0.05)
    raise AssertionError(f"still {state.status if state else None}, wanted {status}")


def numbers(url: str) -> list[int]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT number FROM counted ORDER BY number")]


async def counted(url: str, least: int) -> None:
    for _ in range(500):
        if len(numbers(url)) >= least:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("nothing is counted")


@pytest.fixture
def process(url: str) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        found = subprocess.Popen(
            [sys.executable, str(SCRIPT), url], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
        )
        started.append(found)
        assert found.stdout is not None
        assert found.stdout.readline() == b"ready\n"
        return found

    yield start
    for found in started:
        found.kill()
        found.wait()


async def test_a_killed_process_loses_no_step_and_repeats_none(
    url: str, process: Callable[[], subprocess.Popen[bytes]]
) -> None:
    first = process()
    async with runner_of(url) as asking:
        job_id = await asking.submit("count", {"to": 60}, owner=OWNER)
        await counted(url, 10)
        asking.register("count", count)  # From now on this process would run it too, and it looks for it already.
        await asyncio.sleep(0.3)
        first.send_signal(signal.SIGKILL)
        first.wait()
        reached = len(numbers(url))
        assert reached < 60
        state = await until(asking, job_id, "completed")
        assert numbers(url) == list(range(1, 61))
        assert state.progress == "100%"
        assert state.state == {"reached": 60}


async def test_a_stopped_process_hands_its_job_on_at_once(url: str) -> None:
    async with runner_of(url, LIMITS.model_copy(update={"job_lease_s": 60.0})) as asking:
        async with runner_of(url, LIMITS.model_copy(update={"job_lease_s": 60.0}), count=count):
            job_id = await asking.submit("count", {"to": 30}, owner=OWNER)
            await counted(url, 5)
        async with runner_of(url, count=count):
            await until(asking, job_id, "completed", 5)
    assert numbers(url) == list(range(1, 31))


async def test_one_that_lost_its_lease_can_change_nothing_more(url: str) -> None:
    started, go = asyncio.Event(), asyncio.Event()
    written: list[str] = []

    async def stuck(job: Job) -> None:
        if job.attempt == 1:
            started.set()
            await go.wait()
            try:
                async with job.connections.lend() as connection, connection.transaction():
                    await connection.execute("INSERT INTO counted VALUES ($1, 1)", job.id)
                    await job.save({"by": 1}, connection=connection)
            except BaseException as exc:
                written.append(type(exc).__name__)
                raise
        else:
            await job.save({"by": job.attempt})

    async with runner_of(url, stuck=stuck) as first, runner_of(url, stuck=stuck) as second:
        await second.stop()
        job_id = await first.submit("stuck", {}, owner=OWNER)
        await started.wait()
        with psycopg.connect(url, autocommit=True) as connection:  # As if the first had been frozen for a while.
            connection.execute("UPDATE fhir.job SET lease_until = now() - interval '1 s', holder = 'frozen'")
        await second.start()
        state = await until(second, job_id, "completed")
        go.set()
        await asyncio.sleep(0.3)
        assert state.state == {"by": 2}
        assert (await first.find(job_id)).state == {"by": 2}  # type: ignore[union-attr]
    assert numbers(url) == []


async def test_cancel_reaches_the_process_that_runs_it(
    url: str, process: Callable[[], subprocess.Popen[bytes]]
) -> None:
    process()
    async with runner_of(url) as asking:
        job_id = await asking.submit("count", {"to": 10_000}, owner=OWNER)
        await counted(url, 1)
        await asking.cancel(job_id)
        with pytest.raises(NotFoundError):
            await asking.find_own(job_id, "count", OWNER)
        await asyncio.sleep(1)
        reached = len(numbers(url))
        await asyncio.sleep(0.5)
        assert len(numbers(url)) == reached


async def test_a_job_that_waits_is_cancelled_at_once_and_never_runs(url: str) -> None:
    async with runner_of(url) as asking:
        job_id = await asking.submit("count", {"to": 3}, owner=OWNER)
        await asking.cancel(job_id)
        async with runner_of(url, count=count):
            await asyncio.sleep(0.5)
    assert numbers(url) == []


async def test_only_the_owner_and_administrators_see_a_job(url: str) -> None:
    async with runner_of(url) as asking:
        job_id = await asking.submit("count", {"to": 3}, owner=OWNER)
        assert (await asking.find_own(job_id, "count", OWNER)).request == {"to": 3}
        assert (await asking.find_own(job_id, "count", ADMINISTRATOR)).owner == OWNER
        for context, kind in ((OTHER, "count"), (OWNER, "another")):
            with pytest.raises(NotFoundError):
                await asking.find_own(job_id, kind, context)
        with pytest.raises(NotFoundError):
            await asking.cancel("no-such-job")


@pytest.mark.parametrize(
    ("owner", "patient", "today", "whose", "seen"),
    [
        ("patient/*.rs", "p1", "patient/*.rs", "p1", True),
        ("patient/*.rs", "p1", "patient/*.rs", "p2", False),
        ("patient/*.rs", "p1", "patient/*.rs", None, False),
        ("patient/*.rs", "p1", "user/*.rs", None, True),
        ("patient/*.rs", "p1", "patient/Patient.rs", "p1", False),
        ("user/*.rs", None, "patient/*.rs", "p1", False),
        ("user/*.rs", None, "system/*.r system/*.s", None, True),
        ("user/*.rs", None, "system/*.r", None, False),
        ("user/Patient.rs", None, "user/*.cruds", None, True),
        ("user/Patient.rs", None, "user/Observation.rs", None, False),
        ("user/*.rs patient/*.rs", "p1", "user/*.rs", None, True),
        ("patient/*.rs", None, "", None, True),
        ("foramen/admin", None, "", None, False),
        ("foramen/admin", None, "user/*.cruds", None, False),
    ],
)
async def test_a_token_that_reaches_less_does_not_see_the_owners_job(
    url: str, owner: str, patient: str | None, today: str, whose: str | None, seen: bool
) -> None:
    async with runner_of(url) as asking:
        job_id = await asking.submit(
            "count", {"to": 3}, owner=AccessContext("anna", "app", parse_scopes(owner), owner, patient=patient)
        )
        context = AccessContext("anna", "app", parse_scopes(today), today, patient=whose)
        if seen:
            assert (await asking.find_own(job_id, "count", context)).id == job_id
        else:
            with pytest.raises(ForbiddenError):
                await asking.find_own(job_id, "count", context)


async def test_faults_are_told_and_a_job_without_progress_ends(url: str) -> None:
    attempts: list[int] = []

    async def refuses(job: Job) -> None:
        raise InvalidRequestError("It cannot be done", issue_code="too-costly", expression=("Group.member",))

    async def breaks(job: Job) -> None:
        raise ZeroDivisionError("a secret value")

    async def waits(job: Job) -> None:
        attempts.append(job.attempt)
        raise UpstreamError("Away")

    async with runner_of(url, refuses=refuses, breaks=breaks, waits=waits) as runner:
        ids = {kind: await runner.submit(kind, {}, owner=OWNER) for kind in ("refuses", "breaks", "waits")}
        issue = (await until(runner, ids["refuses"], "failed")).issues[0]
        assert (issue.issue_code, issue.diagnostics, issue.expression) == (
            "too-costly",
            "It cannot be done",
            ("Group.member",),
        )
        broken = (await until(runner, ids["breaks"], "failed")).issues[0]
        assert broken.issue_code == "exception"
        assert "secret" not in broken.diagnostics
        assert "no progress" in (await until(runner, ids["waits"], "failed")).issues[0].diagnostics
        assert attempts == [1, 2, 3]


async def test_as_many_at_a_time_as_the_kind_allows(url: str) -> None:
    now, most = 0, 0

    async def slow(job: Job) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.1)
        now -= 1

    async with runner_of(url) as runner:
        runner.register("slow", slow, parallel=2)
        ids = [await runner.submit("slow", {}, owner=OWNER) for _ in range(5)]
        for job_id in ids:
            await until(runner, job_id, "completed")
    assert most == 2


async def test_a_client_cannot_pile_up_jobs(url: str) -> None:
    async with runner_of(url, LIMITS.model_copy(update={"jobs_per_client": 2})) as runner:
        for _ in range(2):
            await runner.submit("count", {}, owner=OWNER)
        with pytest.raises(ThrottledError) as refused:
            await runner.submit("count", {}, owner=OWNER)
        assert "Retry-After" in refused.value.headers


async def test_finished_jobs_go_when_their_time_is_over_and_their_files_with_them(url: str) -> None:
    gone: list[str] = []

    async def cleanup(job_id: str) -> None:
        gone.append(job_id)

    async def done(job: Job) -> None:
        await job.save({"files": 1})

    async with runner_of(url, LIMITS.model_copy(update={"job_lifetime_s": 0.2})) as runner:
        runner.register("done", done, cleanup=cleanup)
        job_id = await runner.submit("done", {}, owner=OWNER)
        state = await until(runner, job_id, "completed")
        assert state.expires is not None
        assert state.finished is not None
        assert 0 < (state.expires - state.finished).total_seconds() < 1
        await asyncio.sleep(0.3)
        runner._next_cleanup = 0.0  # The clean-up runs every half minute; now is sooner.
        for _ in range(100):
            if await runner.find(job_id) is None:
                break
            await asyncio.sleep(0.05)
        assert gone == [job_id]
        assert await runner.find(job_id) is None
