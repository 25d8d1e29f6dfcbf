"""The order of annotation: what the record keeps of probabilities, diversity, and a SYNTHETIC race against chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ai_services.training.active_learning.order import Candidate, order
from ai_services.training.active_learning.tasks import Wanted, changes
from ai_services.training.active_learning.uncertainty import distribution, entropy

Row = NDArray[np.float64]


@given(
    st.lists(st.floats(0.02, 1), min_size=5, max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_what_the_record_keeps_of_a_grade_is_met_by_the_least_telling_distribution(weights: list[float]) -> None:
    """Mode and mean stay; nothing that fits them is more uncertain, the true distribution among them."""
    row = np.array(weights) / sum(weights)
    called, mean = int(row.argmax()), float(row @ np.arange(1, 6))
    found = distribution(called, float(row[called]), 5, mean)
    assert found.sum() == pytest.approx(1)
    assert found[called] == pytest.approx(row[called])
    assert float(found @ np.arange(1, 6)) == pytest.approx(mean, abs=1e-6)
    assert entropy(found) >= entropy(row) - 1e-9


def test_a_sure_call_has_no_entropy_and_equal_ones_have_all() -> None:
    assert entropy(distribution(1, 1.0, 3)) == 0
    assert entropy(distribution(1, 1 / 3, 3)) == pytest.approx(1)


def candidate(key: str, uncertainty: float, *features: float, **strata: str) -> Candidate:
    return Candidate(key, uncertainty, features, strata)


def test_the_unsure_come_first_and_one_kind_does_not_come_after_another() -> None:
    pool = [candidate(f"a{number}", 0.9 - number / 100, 0.0, sex="female") for number in range(5)]
    pool.append(candidate("b", 0.6, 5.0, sex="male"))
    keys = [place.candidate.key for place in order(pool, [], limit=6, seed=1)]
    assert keys[:2] == ["a0", "b"]
    by_uncertainty = [place.candidate.key for place in order(pool, [], limit=6, seed=1, diversity=0)]
    assert by_uncertainty == ["a0", "a1", "a2", "a3", "a4", "b"]
    # What is labelled already counts as chosen.
    labelled = [candidate("done", 0.1, 5.0, sex="male")]
    assert order(pool, labelled, limit=6, seed=1)[1].candidate.key != "b"


def test_the_same_seed_gives_the_same_queue_whatever_order_the_record_answers_in() -> None:
    generator = np.random.default_rng(7)
    pool = [candidate(f"r{number}", 0.5, *generator.integers(0, 2, 2), site="x") for number in range(30)]
    first = order(pool, [], limit=30, seed=3)
    assert first == order(pool[::-1], [], limit=30, seed=3)
    assert first != order(pool, [], limit=30, seed=4)


def test_finished_annotations_leave_and_work_that_somebody_took_up_stays() -> None:
    def task(report: str, status: str) -> dict[str, object]:
        meta = {"versionId": "3"}
        return {"resourceType": "Task", "id": report, "meta": meta, "status": status, "focus": {"reference": report}}

    def wanted(report: str) -> Wanted:
        return Wanted(report, "Patient/p", 1, 0.5, 1.0, "因", "why", True)

    tasks = [task("done", "in-progress"), task("taken", "in-progress"), task("gone", "in-progress")]
    tasks += [task("old", "requested"), task("stays", "requested")]
    queue = [wanted("taken"), wanted("stays"), wanted("new")]
    found = changes(
        queue, tasks, {"done": "2026-10-02T00:00:00Z"}, frozenset({"taken", "old", "stays", "new"}), seed=1, now="now"
    )
    statuses = {entry["resource"]["focus"]["reference"]: entry["resource"]["status"] for entry in found.entries}
    assert statuses == {
        "done": "completed",
        "gone": "cancelled",
        "old": "cancelled",
        "stays": "requested",
        "new": "requested",
    }
    again = [entry["resource"] for entry in found.entries if entry["resource"]["focus"]["reference"] == "stays"]
    assert changes([wanted("stays")], again, {}, frozenset({"stays"}), seed=1, now="later").entries == ()


def spines(generator: np.random.Generator, count: int) -> tuple[Row, NDArray[np.int64]]:
    """SYNTHETIC studies: four kinds, of which two are rare, in six features; a few labels are noise."""
    kinds = generator.choice(4, count, p=[0.62, 0.3, 0.05, 0.03])
    centres = np.array([[0, 0, 0], [1.8, 0, 0], [1.6, 2.4, 0], [0, 2.0, 2.2]])
    looks = np.hstack([centres[kinds] + generator.normal(0, 0.6, (count, 3)), generator.normal(0, 1, (count, 3))])
    return looks, np.where(generator.random(count) < 0.02, generator.integers(0, 4, count), kinds)


def trained(looks: Row, kinds: NDArray[np.int64]) -> Row:
    """Weights of a softmax regression, by gradient descent."""
    features = np.hstack([looks, np.ones((len(looks), 1))])
    weights = np.zeros((features.shape[1], 4))
    truth = np.eye(4)[kinds]
    for _ in range(150):
        weights -= 0.5 * (features.T @ (probabilities(weights, looks) - truth) / len(looks) + 0.005 * weights)
    return weights


def probabilities(weights: Row, looks: Row) -> Row:
    scores = np.hstack([looks, np.ones((len(looks), 1))]) @ weights
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Row = raised / raised.sum(axis=1, keepdims=True)
    return result


def area(seed: int, *, by_queue: bool, rounds: int = 6, each: int = 8) -> float:
    """Mean balanced accuracy on unseen studies over the rounds: the area under the learning curve."""
    generator = np.random.default_rng(seed)
    looks, kinds = spines(generator, 300)
    unseen, truth = spines(generator, 600)
    labelled = list(generator.choice(300, 12, replace=False))
    reached = []
    for _ in range(rounds):
        weights = trained(looks[labelled], kinds[labelled])
        called = probabilities(weights, unseen).argmax(axis=1)
        reached.append(np.mean([(called[truth == kind] == kind).mean() for kind in range(4)]))
        rest = [index for index in range(300) if index not in set(labelled)]
        if by_queue:
            rows = probabilities(weights, looks)
            known = [candidate(str(index), entropy(rows[index]), *looks[index]) for index in range(300)]
            queue = order([known[i] for i in rest], [known[i] for i in labelled], limit=each, seed=seed)
            labelled += [int(place.candidate.key) for place in queue]
        else:
            labelled += list(generator.choice(rest, each, replace=False))
    return float(np.mean(reached))


def test_the_queue_beats_chance_on_synthetic_studies() -> None:
    """Measure: area under the learning curve of balanced accuracy; 8 races, each from the same start and studies."""
    gains = np.array([area(seed, by_queue=True) - area(seed, by_queue=False) for seed in range(8)])
    assert gains.mean() > 0.05
    assert (gains > 0).sum() >= 7
