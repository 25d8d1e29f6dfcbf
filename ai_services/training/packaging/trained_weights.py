"""The network of a finished run as ONNX, with the same answers (stage 11)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ai_services.models.registry import PackageError
from ai_services.pipelines.lumbar_mr.preprocess import WORKING_SPACING_MM
from ai_services.training.engine import checkpoint as checkpoints
from ai_services.training.engine.architectures import build
from ai_services.training.engine.checkpoint import CheckpointError
from ai_services.training.engine.recipe import GRADERS, RecipeError, decided, recipe_of
from ai_services.training.lumbar_mr.export import ParityError, export_segmentation
from ai_services.training.packaging.grader_weights import SHARE, export_grader
from ai_services.training.tracking.run_record import RunRecord, RunRecordError, read, read_steps

SEGMENTATION, GRADING = "segmentation", "grading"


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A finished run: its record, the step it ended at, its last figures, and the share that a grader joins with."""

    record: RunRecord
    step: int
    figures: dict[str, float]
    share: float | None = None


def role_of_run(folder: Path) -> str:
    """Which weights of a package a run trains: ``segmentation`` or ``grading``; PackageError where there is no run."""
    try:
        return GRADING if read(folder).recipe["architecture"] in GRADERS else SEGMENTATION
    except (RunRecordError, KeyError) as exc:
        raise PackageError(str(exc)) from exc


def export_run(folder: Path, weights: Path, base: Path) -> TrainedRun:
    """Write the network of a run's last step to an ONNX file.

    Parameters
    ----------
    folder : of the run
    weights : the file to write
    base : weights of the same role in the base package; a grader joins them

    Raises
    ------
    PackageError
        No run, not finished, changed since, not for the pipeline's pixels, or ONNX answers differently.
    """
    try:
        record = read(folder)
        recipe = recipe_of(dict(record.recipe))
        if recipe.digest != record.recipe_digest:
            raise PackageError("the run's record was changed: its recipe has another digest")
        grades = recipe.architecture in GRADERS
        if not grades and abs(decided(recipe.spacing_mm) - WORKING_SPACING_MM) > 1e-6:
            raise PackageError(f"the pipeline works on pixels of {WORKING_SPACING_MM} mm: spacing_mm differs")
        found = checkpoints.newest(folder / "checkpoints", recipe.digest, str(record.dataset["digest"]))
        if found is None or found.step != recipe.steps:
            done = 0 if found is None else found.step
            raise PackageError(f"the run is not finished: {done} of {recipe.steps} steps; foramen train goes on")
        network = build(recipe)
        network.load_state_dict(found.model)
        if grades:
            export_grader(network, base, weights, together=recipe.architecture == "disc-sequence")
        else:
            export_segmentation(network.eval(), weights)
    except (RunRecordError, RecipeError, CheckpointError, ParityError) as exc:
        raise PackageError(str(exc)) from exc
    steps = read_steps(folder)
    figures = {name: value for name, value in (steps[-1] if steps else {}).items() if name not in ("step", "seconds")}
    return TrainedRun(record, found.step, figures, SHARE if grades else None)
