"""``python -m ai_services.training.lumbar_mr --data DIR --out DIR``: the whole training, seeded (stage 11).

Writes segmentation.onnx, grading.onnx and metrics.json; a person copies hashes and constants into manifest.yaml.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ai_services.training.lumbar_mr.calibration import fit_calibration
from ai_services.training.lumbar_mr.dataset import (
    LabelledSlice,
    load_gradings,
    load_midsagittal,
    load_space,
    validation_patients,
)
from ai_services.training.lumbar_mr.disc_samples import collect_samples
from ai_services.training.lumbar_mr.evaluate import bootstrap_mean, grading_figures
from ai_services.training.lumbar_mr.export import export_grading, export_segmentation
from ai_services.training.lumbar_mr.grading import scores, targets, train_grading
from ai_services.training.lumbar_mr.segmentation import build_network
from ai_services.training.lumbar_mr.segmentation_stage import dice_by_patient, train_segmentation

log = logging.getLogger("ai_services.training.lumbar_mr")
DEFAULT_SEED = 20261122


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run the stages."""
    parser = argparse.ArgumentParser(prog="python -m ai_services.training.lumbar_mr", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder laid out like data/spider")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and metrics")
    parser.add_argument("--steps", type=int, default=800, help="optimiser steps of the segmentation")
    parser.add_argument("--epochs", type=int, default=40, help="epochs of each grading fold")
    parser.add_argument("--phantoms", type=int, default=16, help="SYNTHETIC phantoms among the training slices")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--stage",
        choices=("all", "segmentation", "tuning", "discs", "grading", "crops"),
        default="all",
        help="all: the next four in turn; tuning: train the segmentation on, on images with mended spacing; discs: "
        "find the graded discs; grading: train on them, going on where it was stopped; crops: the grading networks of "
        "version 0.1",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.stage in ("all", "segmentation"):
        run_segmentation(options.data, options.out, options.steps, options.phantoms, options.seed)
    if options.stage in ("all", "tuning"):
        run_tuning(options.data, options.out, options.seed)
    if options.stage in ("all", "discs", "grading"):
        from ai_services.training.lumbar_mr import grading_stage  # needs LightGBM

        if options.stage != "grading":
            found = grading_stage.collect_discs(options.data, options.out / "segmentation.onnx", options.out)
            _update_metrics(options.out, **found)
        if options.stage != "discs":
            _update_metrics(options.out, **grading_stage.train_graders(options.out, seed=options.seed))
    if options.stage == "crops":
        run_grading(options.data, options.out, options.epochs, options.seed)


def run_segmentation(data: Path, out: Path, steps: int, phantoms: int, seed: int) -> None:
    """Train, measure on the validation patients, export segmentation.onnx."""
    slices, midsagittal = load_space(data), load_midsagittal(data)
    held_out = validation_patients([item.patient for item in slices], seed)
    network = train_segmentation(slices, midsagittal, held_out, steps=steps, seed=seed, phantoms=phantoms)
    torch.save(network.state_dict(), out / "segmentation.pt")
    figures = _segmentation_figures(network, slices, held_out, out, seed)
    _update_metrics(out, seed=seed, segmentation_steps=steps, **figures)


def _segmentation_figures(
    network: nn.Module, slices: list[LabelledSlice], held_out: tuple[int, ...], out: Path, seed: int
) -> dict[str, Any]:
    """Dice of the patients kept aside; writes segmentation.onnx."""
    measured = dice_by_patient(network, [item for item in slices if item.patient in held_out])
    summary = {
        name: bootstrap_mean([measured[patient][index] for patient in sorted(measured)], seed)
        for index, name in enumerate(("vertebra", "disc", "canal"))
    }
    return {
        "validation_patients": list(held_out),
        "dice": summary,
        "dice_by_patient": {str(patient): [round(v, 3) for v in values] for patient, values in measured.items()},
        "segmentation_sha256": export_segmentation(network, out / "segmentation.onnx"),
    }


def run_tuning(data: Path, out: Path, seed: int) -> None:
    """Train the segmentation in `out` on, measure it again and export it; the weights before are kept beside it."""
    from ai_services.evaluation.placing import place_images
    from ai_services.training.lumbar_mr.segmentation import predict
    from ai_services.training.lumbar_mr.segmentation_tuning import STEPS, tuned

    slices = load_space(data)
    held_out = validation_patients([item.patient for item in slices], seed)
    before = out / "segmentation.before.pt"
    if not before.exists():
        (out / "segmentation.pt").rename(before)
    state = torch.load(before, weights_only=True)
    first = build_network()
    first.load_state_dict(state)
    first.eval()
    placed = place_images(load_midsagittal(data, ("t1", "t2")), lambda image: predict(first, image))
    network = tuned(state, slices, placed, load_gradings(data), held_out)
    torch.save(network.state_dict(), out / "segmentation.pt")
    _update_metrics(out, tuning_steps=STEPS, **_segmentation_figures(network, slices, held_out, out, seed))


def run_grading(data: Path, out: Path, epochs: int, seed: int) -> None:
    """Collect discs with the trained segmentation, train the folds, calibrate, measure, export grading.onnx."""
    network = _load_segmentation(out)
    slices, gradings = load_space(data), load_gradings(data)
    held_out = validation_patients([item.patient for item in slices], seed)
    samples = collect_samples(network, load_midsagittal(data), slices, gradings)
    training = [sample for sample in samples if sample.patient not in held_out]
    unseen = [s for s in samples if s.patient in held_out and s.primary]
    ensemble, out_of_fold = train_grading(training, epochs=epochs, seed=seed)
    primary = np.array([sample.primary for sample in training])
    counted = [sample for sample in training if sample.primary]
    calibration = fit_calibration(out_of_fold[primary], targets(counted))
    figures: dict[str, Any] = {}
    for name, group, group_scores in (
        ("cross_validation", counted, out_of_fold[primary]),
        ("validation_patients_space", *_scored(ensemble, unseen, "space")),
        ("validation_patients_t2", *_scored(ensemble, unseen, "t2")),
    ):
        if group:
            patients = np.array([sample.patient for sample in group])
            figures[name] = {
                "discs": len(group),
                "patients": len(set(patients.tolist())),
                "herniations": sum(sample.grading.herniation for sample in group),
                **grading_figures(group_scores, targets(group), patients, calibration, seed),
            }
    _update_metrics(
        out,
        grading_epochs=epochs,
        calibration=dataclasses.asdict(calibration),
        grading=figures,
        grading_sha256=export_grading(ensemble, out / "grading.onnx"),
    )


def _scored(ensemble: nn.Module, samples: list[Any], source: str) -> tuple[list[Any], Any]:
    own = [sample for sample in samples if sample.source == source]
    return own, scores(ensemble, own)


def _load_segmentation(out: Path) -> nn.Module:
    network = build_network()
    network.load_state_dict(torch.load(out / "segmentation.pt", weights_only=True))
    return network.eval()


def _update_metrics(out: Path, **values: Any) -> None:
    path = out / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**metrics, **values}, indent=1), encoding="utf-8")
    log.info("%s", json.dumps(values, indent=1))


if __name__ == "__main__":
    main()
