"""The order in which studies are worth annotating: unsure ones first, but not one kind after another. Pure.

Greedy: the next study is the one with the largest sum of uncertainty and distance to the nearest study that has been
chosen or is labelled already (k-centre, https://arxiv.org/abs/1708.00489), each as a share of the largest. Ties are
broken by a hash of seed and key, so that the same record and seed give the same queue.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Candidate:
    """One study.

    Parameters
    ----------
    key : names it
    uncertainty : 0 to 1
    features : numbers that say what it looks like; NaN where one is not known
    strata : groups it belongs to, by kind
    """

    key: str
    uncertainty: float
    features: tuple[float, ...]
    strata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Place:
    """A study's place in the queue, from 1.

    Parameters
    ----------
    candidate : the study
    distance : to the nearest labelled or earlier study, as a share of the largest; 1 where there is none
    rare : kinds in which its group has few labelled and earlier studies, with that number and the number of all
    """

    rank: int
    candidate: Candidate
    distance: float
    rare: tuple[tuple[str, str, int, int], ...]


def order(
    pool: Sequence[Candidate],
    labelled: Sequence[Candidate],
    *,
    limit: int,
    seed: int,
    diversity: float = 0.5,
    strata_weight: float = 0.5,
) -> list[Place]:
    """Order a pool.

    Parameters
    ----------
    pool : studies that nobody has annotated
    labelled : studies that somebody has
    limit : how many are wanted
    seed : breaks ties
    diversity : share of distance in the score, 0 to 1; the rest is uncertainty
    strata_weight : share of the groups in the distance, 0 to 1; the rest is features
    """
    if not 0 <= diversity <= 1 or not 0 <= strata_weight <= 1:
        raise ValueError("shares are 0 to 1")
    if not pool:
        return []
    ordered = sorted(pool, key=lambda item: _tie(seed, item.key))
    everything = [*ordered, *labelled]
    numbers = _standardised(np.array([item.features for item in everything], dtype=np.float64))
    groups = _coded([item.strata for item in everything])
    nearest = np.full(len(ordered), np.inf)
    for index in range(len(ordered), len(everything)):
        nearest = np.minimum(nearest, _distances(numbers, groups, index, strata_weight)[: len(ordered)])
    uncertainty = np.array([item.uncertainty for item in ordered])
    uncertainty = uncertainty / max(float(uncertainty.max()), 1e-12)
    seen = _Seen(labelled)
    open_ = np.ones(len(ordered), dtype=bool)
    places: list[Place] = []
    for rank in range(1, min(limit, len(ordered)) + 1):
        share = _share(nearest, open_)
        score = np.where(open_, (1 - diversity) * uncertainty + diversity * share, -np.inf)
        chosen = int(np.argmax(score))
        places.append(Place(rank, ordered[chosen], float(share[chosen]), seen.rare(ordered[chosen])))
        seen.add(ordered[chosen])
        open_[chosen] = False
        nearest = np.minimum(nearest, _distances(numbers, groups, chosen, strata_weight)[: len(ordered)])
    return places


class _Seen:
    """How many labelled and chosen studies each group has."""

    def __init__(self, labelled: Sequence[Candidate]) -> None:
        self._all = 0
        self._counts: Counter[tuple[str, str]] = Counter()
        for item in labelled:
            self.add(item)

    def add(self, candidate: Candidate) -> None:
        self._all += 1
        self._counts.update(candidate.strata.items())

    def rare(self, candidate: Candidate) -> tuple[tuple[str, str, int, int], ...]:
        """Groups that hold less than half of their even share of what was seen."""
        found = []
        for kind, group in candidate.strata.items():
            kinds = sum(1 for name, _ in self._counts if name == kind)
            count = self._counts[kind, group]
            if self._all and count < self._all / (2 * max(1, kinds)):
                found.append((kind, group, count, self._all))
        return tuple(found)


def _share(nearest: NDArray[np.float64], open_: NDArray[np.bool_]) -> NDArray[np.float64]:
    if not np.isfinite(nearest).any():
        return np.ones_like(nearest)
    largest = float(nearest[open_].max())
    return nearest / largest if largest > 0 else np.zeros_like(nearest)


def _distances(
    numbers: NDArray[np.float64], groups: NDArray[np.int64], to: int, strata_weight: float
) -> NDArray[np.float64]:
    """Distance of everything to one study: of features by root mean square, of groups by the share that differs."""
    looks = np.sqrt(np.mean((numbers - numbers[to]) ** 2, axis=1)) if numbers.shape[1] else np.zeros(len(numbers))
    differ = np.mean(groups != groups[to], axis=1) if groups.shape[1] else np.zeros(len(groups))
    result: NDArray[np.float64] = (1 - strata_weight) * looks + strata_weight * differ
    return result


def _standardised(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns with mean 0 and deviation 1; what is not known lies in the middle."""
    if table.size == 0:
        return table.reshape(len(table), -1)
    known = np.isfinite(table)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, table, 0).sum(axis=0) / count
    centred = np.where(known, table - mean, 0)
    deviation = np.sqrt((centred**2).sum(axis=0) / count)
    return centred / np.where(deviation > 0, deviation, 1)


def _coded(strata: Sequence[Mapping[str, str]]) -> NDArray[np.int64]:
    kinds = sorted({kind for item in strata for kind in item})
    columns = []
    for kind in kinds:
        words = {word: number for number, word in enumerate(sorted({item.get(kind, "") for item in strata}))}
        columns.append([words[item.get(kind, "")] for item in strata])
    return np.array(columns, dtype=np.int64).reshape(len(kinds), len(strata)).T


def _tie(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed}:{key}".encode()).digest()
