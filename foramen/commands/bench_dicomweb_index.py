"""Rows of `foramen bench dicomweb` on the study index: metadata, searches, and how they grow."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import httpx
from rich.console import Console

from dicomweb.index.loading import load
from foramen.commands.bench_dicomweb_data import index_rows
from foramen.commands.bench_dicomweb_plans import plan_of, summary
from foramen.commands.bench_dicomweb_retrieve import get_all, servers
from foramen.commands.bench_dicomweb_system import Bench, seconds, settle
from foramen.commands.bench_dicomweb_table import Row
from foramen.commands.bench_http import LeanConnection

_TEXT = "application/dicom+json"
_JSON = {"Accept": _TEXT, "Accept-Encoding": "identity"}
_PACKED = {"Accept": "application/dicom+json", "Accept-Encoding": "gzip"}
_BATCH = 2000
_EXPLAINED = 3


def index_figures(bench: Bench) -> Iterator[Row]:
    """Metadata and searches of the stored study, interleaved with Orthanc's plug-in."""
    settle(bench)
    whole, one = f"/studies/{bench.study}/metadata", f"/studies/{bench.study}/series/{bench.series}/metadata"
    for path, count, goal in ((one, bench.per_series, None), (whole, bench.instances, 60.0)):
        yield _pair(f"metadata of {count} instances", bench, path, count, goal, 40.0)
    packed = [seconds(lambda: _raw(bench.ours, whole)) * 1000 for _ in range(bench.repeats)]
    yield Row(f"metadata of {bench.instances} instances, passed on as gzip", "ms", packed, goal=60.0)
    tag = bench.ours.get(whole, headers=_PACKED).headers["ETag"]
    unchanged = [seconds(lambda: _unchanged(bench.ours, whole, tag)) * 1000 for _ in range(bench.repeats)]
    yield Row("metadata that did not change (304)", "ms", unchanged)
    count = min(bench.per_series, 1000)
    path = f"/studies/{bench.study}/series/{bench.series}/instances?limit=1000"
    yield _pair(f"QIDO, {count} instances", bench, path, count, 25.0, None)


def _pair(name: str, bench: Bench, path: str, count: int, goal: float | None, ratio: float | None) -> Row:
    """Ask both for the same, by turns; what warms caches is not counted, but seen whether it is whole."""
    for client in (bench.ours, bench.theirs):
        _count(client, path, count)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(bench.repeats):
        mine, other = (1000 * seconds(lambda s=server: get_all(s, [path], _TEXT)) for server in servers(bench))  # type: ignore[misc]
        ours.append(mine)
        theirs.append(other)
    return Row(name, "ms", ours, theirs, goal=goal, ratio_goal=ratio)


def _count(client: httpx.Client, path: str, count: int) -> None:
    """Ask, and see by the bytes that the answer is whole: to parse it is the reader's time, not the server's."""
    answer = client.get(path, headers=_JSON)
    answer.raise_for_status()
    if answer.content.count(b'"00080018"') < count:
        raise RuntimeError("the answer is not whole")


def _raw(client: httpx.Client, path: str) -> None:
    with client.stream("GET", path, headers=_PACKED) as answer:
        answer.raise_for_status()
        for _ in answer.iter_raw():
            pass


def _unchanged(client: httpx.Client, path: str, tag: str) -> None:
    if client.get(path, headers=_PACKED | {"If-None-Match": tag}).status_code != 304:
        raise RuntimeError("it changed")


def growth(bench: Bench, sizes: list[int], instances: int, questions: int) -> Iterator[Row]:
    """Searches over an index of more and more studies; its rows are made directly, no files lie behind them."""
    have, (ours, _) = 0, servers(bench)
    for size in sorted(sizes):
        Console().print(f"growing the index to {size} studies, {size * instances} instances (rows made directly) …")
        with bench.database() as connection:
            connection.execute("SET synchronous_commit = off")
            while have < size:
                count = min(_BATCH, size - have)
                load(connection, list(index_rows(have, count, instances)), prebuild=False)
                have += count
            connection.execute("VACUUM (ANALYZE) dicomweb.study, dicomweb.series, dicomweb.instance")
            connection.execute("CHECKPOINT")
            row = connection.execute(
                """SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c
                   WHERE c.relnamespace = 'dicomweb'::regnamespace AND c.relname IN ('study', 'series', 'instance')"""
            ).fetchone()
        size_mb = int(str(row[0])) / 1e6 if row else 0.0
        bench.notes[f"index of {size} studies, {size * instances} instances"] = f"{size_mb:.0f} MB"
        named = f"QIDO over {size} studies, {questions} questions"
        slowest: list[tuple[float, str, str]] = []
        for kind, ask in _questions(size).items():
            _ok(bench.ours, path := ask())  # Reads into memory what the first question of a kind would wait for.
            with LeanConnection(ours.base, {**ours.headers, "Accept": "*/*"}) as connection:
                asked = [ask().replace(" ", "%20") for _ in range(questions)]
                times = [seconds(lambda q=query, c=connection: c.get(q)) * 1000 for query in asked]  # type: ignore[misc]
            goal = 20.0 if size <= 100_000 else None
            figure = Row(f"{named}: {kind}", "ms", times, percentile=99, goal=goal)
            slowest.append((figure.value, kind, path))
            yield figure
        _explain(bench, size, sorted(slowest, reverse=True)[:_EXPLAINED])


def _explain(bench: Bench, size: int, slowest: list[tuple[float, str, str]]) -> None:
    """Print how PostgreSQL answers the slowest kinds of questions; a line of each is kept."""
    for _, kind, path in slowest:
        plan = plan_of(bench.database_url, path)
        Console().print(f"\nplan over {size} studies: {kind}\n" + "\n".join(plan), markup=False, highlight=False)
        bench.notes[f"plan over {size} studies: {kind}"] = summary(plan)


def _ok(client: httpx.Client, path: str) -> None:
    client.get(path).raise_for_status()


def _questions(size: int) -> dict[str, Callable[[], str]]:
    """Return the kinds of questions; each call asks for something else."""
    draw = random.Random(11)  # noqa: S311  choices of a benchmark

    def number() -> int:
        return draw.randrange(size)

    def day() -> str:
        return f"{2006 + number() % 20}{number() % 12 + 1:02}{number() % 28 + 1:02}"

    return {
        "Patient ID": lambda: f"/studies?PatientID=SYN-B{number():07}",
        "accession number": lambda: f"/studies?AccessionNumber=A{number():08}",
        "name begins with": lambda: f"/studies?PatientName=li^na {number() // 100}*&limit=100",
        "name holds": lambda: f"/studies?PatientName=*{number() // 100}*&limit=100",
        "fuzzy name": lambda: f"/studies?PatientName=jorg muller&fuzzymatching=true&limit={50 + number() % 50}",
        "day and modality": lambda: f"/studies?StudyDate={day()}&ModalitiesInStudy=MR",
        "description holds, newest 100": lambda: (
            f"/studies?StudyDescription=*Lumbar*&limit=100&offset={number() % 100}"
        ),
        "newest 100": lambda: f"/studies?limit=100&offset={number() % 100}",
        "instances of a study": lambda: f"/studies/1.2.826.0.1.3680043.10.1554.77.9.{number()}/instances",
    }
