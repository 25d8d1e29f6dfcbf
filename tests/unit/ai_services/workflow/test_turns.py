"""Who goes first: ranks, turns of institutions, limits of a worker, and the gate before the models."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_services.workflow.admission import Limits, Load, admits, bytes_in, wanted
from ai_services.workflow.fairness import Waiting, in_turn
from ai_services.workflow.gate import Gate
from ai_services.workflow.priorities import EXPEDITED, Rank, for_batch, for_live, rank_of
from terminology.codes import ANALYSE_STUDY, RECOMMEND_OPTIONS

ANALYSE, RECOMMEND = ANALYSE_STUDY.code, RECOMMEND_OPTIONS.code


def waiting(name: str, institution: str = "", rank: Rank = Rank.ROUTINE) -> Waiting:
    return Waiting({"id": name, "authoredOn": f"2026-11-22T08:00:{len(name):02d}Z"}, rank, institution)


def names(items: list[Waiting]) -> list[str]:
    return [str(item.task["id"]) for item in items]


def test_a_task_has_the_rank_of_its_priority_and_a_batch_goes_last() -> None:
    task: dict[str, Any] = {"resourceType": "Task"}
    assert rank_of(task) is Rank.ROUTINE
    assert rank_of({**task, "priority": "stat"}) is Rank.STAT
    batch = for_batch(task)
    assert rank_of(batch) is Rank.BATCH
    assert rank_of({**batch, "priority": "urgent"}) is Rank.URGENT
    assert for_live(batch) == {**task, "priority": "routine"}
    foreign = {**task, "performerType": [{"text": "radiologist"}]}
    assert for_live(foreign) == foreign


def test_an_institution_that_floods_does_not_starve_another() -> None:
    flood = [waiting(f"a{number:03d}", "A") for number in range(100)]
    ordered = names(in_turn([*flood, waiting("late-b", "B"), waiting("later-c", "C")], {}, {}))
    assert set(ordered[:3]) == {"a000", "late-b", "later-c"}


def test_who_has_most_in_work_waits_for_who_has_least() -> None:
    items = [waiting("a", "A"), waiting("bb", "B"), waiting("ccc", "")]
    assert names(in_turn(items, {"A": 2, "B": 1}, {})) == ["ccc", "bb", "a"]
    assert names(in_turn(items, {}, {"A": 9.0, "B": 8.0, "": 7.0})) == ["ccc", "bb", "a"]


def test_an_emergency_goes_before_every_turn() -> None:
    items = [waiting("old", "A"), waiting("new-emergency", "A", Rank.STAT), waiting("batch", "B", Rank.BATCH)]
    assert names(in_turn(items, {"A": 5}, {"A": 1.0})) == ["new-emergency", "old", "batch"]


@given(
    st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from(list(Rank))), max_size=40),
    st.dictionaries(st.sampled_from("ABC"), st.integers(0, 3)),
)
def test_nothing_is_lost_and_within_an_institution_the_oldest_goes_first(
    made: list[tuple[str, Rank]], in_work: dict[str, int]
) -> None:
    items = [Waiting({"id": f"{n:03d}", "authoredOn": "x"}, rank, place) for n, (place, rank) in enumerate(made)]
    ordered = in_turn(items, in_work, {})
    assert sorted(names(ordered)) == names(items)
    assert [item.rank for item in ordered] == sorted(item.rank for item in items)
    for key in set(made):
        own = [item for item in ordered if (item.institution, item.rank) == key]
        assert names(own) == sorted(names(own))


def test_a_worker_takes_a_few_and_one_more_for_an_emergency() -> None:
    limits = Limits(runs=2, spool_bytes=1000)
    full = Load([Rank.ROUTINE, Rank.BATCH], 0, 10)
    assert admits(Load([Rank.ROUTINE], 0, 10), limits, ANALYSE, Rank.BATCH)
    assert not admits(full, limits, ANALYSE, Rank.ROUTINE)
    assert admits(full, limits, ANALYSE, Rank.STAT)
    assert not admits(Load([Rank.STAT, *full.analyses], 0, 10), limits, ANALYSE, Rank.STAT)
    assert wanted(full, limits, tuple(Rank)) == {ANALYSE: EXPEDITED, RECOMMEND: tuple(Rank)}
    assert wanted(full, limits, (Rank.BATCH,)) == {RECOMMEND: (Rank.BATCH,)}
    assert wanted(Load([Rank.STAT, *full.analyses], 1, 10), limits, tuple(Rank)) == {}


def test_a_full_spool_stops_claims_but_never_the_last_run() -> None:
    limits = Limits(runs=2, spool_bytes=1000)
    assert not admits(Load([Rank.ROUTINE], 0, 1000), limits, ANALYSE, Rank.STAT)
    assert admits(Load([], 0, 1000), limits, ANALYSE, Rank.ROUTINE)
    assert admits(Load([Rank.ROUTINE], 0, 1000), limits, RECOMMEND, Rank.ROUTINE)


def test_the_spool_is_measured(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a").write_bytes(b"x" * 70)
    (tmp_path / "b").write_bytes(b"x" * 7)
    assert bytes_in(tmp_path) == 77
    assert bytes_in(tmp_path / "nothing") == 0


def test_the_most_urgent_passes_the_gate_first_and_one_at_a_time() -> None:
    gate, order, inside = Gate(), [], []
    arrived = []

    def work(rank: int) -> None:
        arrived.append(rank)
        with gate.turn(rank):
            inside.append(rank)
            assert len(inside) == 1
            order.append(rank)
            inside.remove(rank)

    threads = []
    with gate.turn(0):
        for rank in (4, 3, 3, 0):
            threads.append(threading.Thread(target=work, args=(rank,)))
            threads[-1].start()
            while len(arrived) < len(threads):
                time.sleep(0.001)
        time.sleep(0.05)
    for thread in threads:
        thread.join(5)
    assert order == [0, 3, 3, 4]


def test_a_fault_at_the_models_frees_the_gate() -> None:
    gate = Gate()
    with pytest.raises(ValueError, match="x"), gate.turn(0):
        raise ValueError("x")
    with gate.turn(0):
        pass


def test_a_spool_whose_folders_come_and_go_is_measured(tmp_path: Path) -> None:
    stopping = threading.Event()

    def come_and_go() -> None:
        while not stopping.is_set():
            for number in range(20):
                (tmp_path / str(number) / "deeper").mkdir(parents=True, exist_ok=True)
            for number in range(20):
                shutil.rmtree(tmp_path / str(number), ignore_errors=True)

    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_bytes(b"1234")
    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        assert {bytes_in(tmp_path) for _ in range(500)} == {4}
    finally:
        stopping.set()
        other.join()
