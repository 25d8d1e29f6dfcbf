"""Grades discs from their features: gradient-boosted trees averaged with a linear model (stage 11).

LightGBM: https://lightgbm.readthedocs.io; the linear model sees what the trees split too coarsely, and is what keeps
rare findings calm. Scores are log-odds, in the order of `graded_discs.TARGETS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightgbm  # type: ignore[import-not-found,import-untyped,unused-ignore]
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

SPACE_WEIGHT = 0.5
LINEAR_SHARE = 0.4
RARE = (5, 8)
"""Herniation and spondylolisthesis: shallower trees, stronger shrinkage."""
CLIP_PERCENTILES = (1.0, 99.0)

TREES: dict[str, Any] = {
    "extra_trees": True,
    "n_estimators": 300,
    "learning_rate": 0.04,
    "num_leaves": 8,
    "min_child_samples": 12,
    "colsample_bytree": 0.4,
    "subsample": 0.7,
    "subsample_freq": 1,
    "reg_lambda": 5.0,
    "n_jobs": 1,
    "verbose": -1,
    "deterministic": True,
    "force_row_wise": True,
}
RARE_TREES: dict[str, Any] = TREES | {"n_estimators": 120, "num_leaves": 5, "min_child_samples": 20}


@dataclass(frozen=True)
class LinearGrader:
    """Logistic regressions on clipped, standardised features; a missing value becomes the median.

    Parameters
    ----------
    median, low, high, mean, deviation : shape (feature,)
    weights : shape (feature, target); intercept : shape (target,)
    """

    median: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    weights: NDArray[np.float32]
    intercept: NDArray[np.float32]

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log-odds, shape (disc, target)."""
        return self.standardise(features) @ self.weights + self.intercept

    def standardise(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fill, clip and scale."""
        filled = np.where(np.isnan(features), self.median, features)
        result: NDArray[np.float32] = (np.clip(filled, self.low, self.high) - self.mean) / self.deviation
        return result


@dataclass(frozen=True)
class FeatureGrader:
    """Both models; `boosters[target]` are the seeds of one target."""

    boosters: tuple[tuple[lightgbm.Booster, ...], ...]
    linear: LinearGrader

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log-odds, shape (disc, target), of features, shape (disc, feature), NaN where missing."""
        trees = np.stack(
            [np.mean([b.predict(features, raw_score=True) for b in seeds], axis=0) for seeds in self.boosters], axis=1
        )
        blend = (1 - LINEAR_SHARE) * trees + LINEAR_SHARE * self.linear.scores(features)
        return blend.astype(np.float32)


def fit(
    features: NDArray[np.float32], truth: NDArray[np.float32], weight: NDArray[np.float64], *, seed: int, seeds: int = 3
) -> FeatureGrader:
    """Fit both models.

    Parameters
    ----------
    features, truth : shape (disc, feature) and (disc, target)
    weight : shape (disc,)
    seed, seeds : of the first tree model of a target, and how many there are
    """
    boosters = []
    for target in range(truth.shape[1]):
        parameters = RARE_TREES if target in RARE else TREES
        boosters.append(
            tuple(
                lightgbm.LGBMClassifier(**parameters, random_state=seed + number)
                .fit(features, truth[:, target] > 0.5, sample_weight=weight)
                .booster_
                for number in range(seeds)
            )
        )
    return FeatureGrader(tuple(boosters), _fit_linear(features, truth, weight))


def _fit_linear(features: NDArray[np.float32], truth: NDArray[np.float32], weight: NDArray[np.float64]) -> LinearGrader:
    median = np.nan_to_num(np.nanmedian(features, axis=0))
    filled = np.where(np.isnan(features), median, features)
    low, high = np.percentile(filled, CLIP_PERCENTILES, axis=0)
    clipped = np.clip(filled, low, high)
    mean, deviation = clipped.mean(axis=0), clipped.std(axis=0)
    deviation = np.where(deviation < 1e-6, 1.0, deviation)
    standard = (clipped - mean) / deviation
    weights, intercept = [], []
    for target in range(truth.shape[1]):
        strength = 0.003 if target in RARE else 0.01
        model = LogisticRegression(C=strength, max_iter=400).fit(standard, truth[:, target] > 0.5, sample_weight=weight)
        weights.append(model.coef_[0])
        intercept.append(float(model.intercept_[0]))
    parts = (median, low, high, mean, deviation, np.stack(weights, axis=1), np.array(intercept))
    return LinearGrader(*(np.asarray(part, dtype=np.float32) for part in parts))
