"""The grading stages: collect the graded discs; then cross-validate, train, calibrate and export (stage 11)."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ai_services.evaluation.grading import grading_figures
from ai_services.evaluation.placing import place_images
from ai_services.pipelines.lumbar_mr.infer import class_probabilities
from ai_services.training.lumbar_mr.blend_export import NETWORK_SHARE, blended, export_blend
from ai_services.training.lumbar_mr.calibration import fit_calibration
from ai_services.training.lumbar_mr.cross_validation import compared, folds_of, measured, unseen_scores
from ai_services.training.lumbar_mr.dataset import load_gradings, load_midsagittal
from ai_services.training.lumbar_mr.discs_file import load_discs, save_discs
from ai_services.training.lumbar_mr.export import sha256
from ai_services.training.lumbar_mr.feature_grader import SPACE_WEIGHT, FeatureGrader, fit
from ai_services.training.lumbar_mr.graded_discs import Count, GradedDiscs, collect
from ai_services.training.lumbar_mr.patch_training import EPOCHS, patch_scores, train_networks
from ai_services.training.lumbar_mr.splits import HELD_OUT, SEED
from ai_services.training.lumbar_mr.unseen import save_unseen, unseen_of

log = logging.getLogger(__name__)

SEQUENCES = ("t2", "t2_SPACE")
NETWORK_SEEDS = (0, 1)
NETWORKS = "networks"


def collect_discs(data: Path, segmentation: Path, out: Path) -> dict[str, Any]:
    """Find the graded discs in every image and keep them in `out`; returns how well they were counted.

    Parameters
    ----------
    data : folder laid out like data/spider
    segmentation : segmentation.onnx, trained without the held-out patients
    out : folder that gets discs.npz
    """
    session = onnxruntime.InferenceSession(str(segmentation), providers=["CPUExecutionProvider"])
    images = place_images(load_midsagittal(data, ("t1", *SEQUENCES)), lambda image: class_probabilities(session, image))
    discs, counts = collect([image for image in images if image.sequence in SEQUENCES], load_gradings(data))
    save_discs(discs, counts, sha256(segmentation), out)
    return {"counts": counting(counts)}


def train_graders(
    out: Path, *, seed: int = SEED, network_seeds: Sequence[int] = NETWORK_SEEDS, epochs: float = EPOCHS
) -> dict[str, Any]:
    """Cross-validate and export the grader of the discs in `out`; what was trained there before is not trained again.

    Parameters
    ----------
    out : folder with discs.npz; gets networks/, unseen.npz and grading.onnx
    seed : of trees and bootstrap
    network_seeds, epochs : networks of each fold, and how long they are trained
    """
    discs, counts, segmentation_sha256 = load_discs(out)
    ensemble, of_networks = train_networks(discs, out / NETWORKS, seeds=network_seeds, epochs=epochs)
    grader, of_features = _train_features(discs, seed)
    scores = blended(of_features, of_networks)
    save_unseen(unseen_of(discs, scores, counts, segmentation_sha256), out)
    fold, t2 = folds_of(discs), discs.sequences == "t2"
    calibration = fit_calibration(scores[t2 & (fold >= 0)], discs.truth[t2 & (fold >= 0)])
    figures = {"cross_validation_t2": measured(discs, scores, t2, seed)}
    figures["cross_validation_t2_features_alone"] = measured(discs, of_features, t2, seed)
    figures["cross_validation_t2_networks_alone"] = measured(discs, of_networks, t2, seed)
    if (~t2 & (fold >= 0)).any():
        figures["cross_validation_t2_SPACE"] = measured(discs, scores, ~t2, seed)
    for sequence in SEQUENCES:
        rows = np.flatnonzero((fold < 0) & (discs.sequences == sequence))
        if len(rows):
            own = np.full_like(scores, np.nan)
            own[rows] = blended(grader.scores(discs.features[rows]), patch_scores(ensemble, discs, rows))
            figures[f"held_out_{sequence}"] = grading_figures(compared(discs, own, rows, calibration), seed)
    return {
        "features": list(discs.names),
        "network_share": NETWORK_SHARE,
        "networks": len(ensemble.networks),
        "calibration": {name: value for name, value in dataclasses.asdict(calibration).items() if value is not None},
        "grading": {name: {key: f.as_json() for key, f in part.items()} for name, part in figures.items()},
        "grading_sha256": export_blend(grader, ensemble, out / "grading.onnx", discs.features, discs.patches),
    }


def _train_features(discs: GradedDiscs, seed: int) -> tuple[FeatureGrader, NDArray[np.float32]]:
    """The feature grader of all but the held-out, and the unseen scores of its folds."""
    weight = np.where(discs.sequences == "t2", 1.0, SPACE_WEIGHT)

    def score(training: NDArray[np.intp], rest: NDArray[np.intp]) -> NDArray[np.float32]:
        own = fit(discs.features[training], discs.truth[training], weight[training], seed=seed)
        return own.scores(discs.features[rest])

    known = np.flatnonzero(folds_of(discs) >= 0)
    return fit(discs.features[known], discs.truth[known], weight[known], seed=seed), unseen_scores(discs, score)


def counting(counts: Sequence[Count]) -> dict[str, Any]:
    """Share of images whose discs are counted as they were graded, by sequence, without and within the held-out."""
    result: dict[str, Any] = {}
    for sequence in SEQUENCES:
        for name, held_out in (("training", False), ("held_out", True)):
            own = [c for c in counts if c.sequence == sequence and (c.patient in HELD_OUT) is held_out and c.graded]
            if own:
                differences = np.array([count.found - count.graded for count in own])
                result[f"{sequence} {name}"] = {
                    "images": len(own),
                    "equal": round(float((differences == 0).mean()), 3),
                    "one_more": round(float((differences == 1).mean()), 3),
                    "one_fewer": round(float((differences == -1).mean()), 3),
                }
    return result
