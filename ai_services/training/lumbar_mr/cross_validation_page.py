"""``python -m ai_services.training.lumbar_mr.cross_validation_page``: the released version's page (stage 11).

Reads the unseen scores that the grading stage kept, runs the released pipeline over the held-out patients, and writes
one Markdown page with figures, intervals, subgroups and pictures. Refuses scores of other weights than the released.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from ai_services.evaluation.figures import Figure, with_intervals
from ai_services.evaluation.folder import LabelledFolder, Series, read_folder
from ai_services.evaluation.grading import grading_figures
from ai_services.evaluation.lumbar_mr import Pipeline, classes_of, released, run_over
from ai_services.evaluation.page import GROUPS, NAMES
from ai_services.evaluation.report import FEWEST_PATIENTS, counting_figures, segmentation_figures
from ai_services.models.registry import load_manifest
from ai_services.pipelines.lumbar_mr.pipeline import Analysis
from ai_services.training.lumbar_mr.case_pictures import (
    Shown,
    count_pictures,
    herniation_pictures,
    outline_pictures,
    patient_pictures,
    shown,
    write_sheet,
)
from ai_services.training.lumbar_mr.case_selection import Spoken, by_agreement, herniations, miscounted
from ai_services.training.lumbar_mr.cross_validation import cross_validated
from ai_services.training.lumbar_mr.splits import FOLDS, HELD_OUT, SEED
from ai_services.training.lumbar_mr.unseen import Unseen, load_unseen

GOALS = {
    "vertebra_dice": 0.93, "disc_dice": 0.90, "canal_dice": 0.93, "count_right": 0.95,
    "pfirrmann_accuracy": 0.68, "pfirrmann_within_one": 0.97, "pfirrmann_quadratic_kappa": 0.82,
    "pfirrmann_calibration_error": 0.05, "bulging_auroc": 0.93, "narrowing_auroc": 0.93, "herniation_auroc": 0.88,
    "modic_auroc": 0.88, "severity_accuracy": 0.87, "severity_balanced_accuracy": 0.80,
    "bulging_calibration_error": 0.05, "herniation_calibration_error": 0.05, "narrowing_calibration_error": 0.05,
    "modic_calibration_error": 0.05,
}  # fmt: skip
"""What version 0.3 and later are to reach on unseen patients of this data; an error is to stay below."""
SUBGROUP_FIGURES = (
    "pfirrmann_accuracy", "pfirrmann_within_one", "pfirrmann_quadratic_kappa", "severity_accuracy", "bulging_auroc",
    "herniation_auroc", "narrowing_auroc",
)  # fmt: skip
SEQUENCES = ("t2", "t2_SPACE")
REMARKS = "<!-- remarks -->"
PATIENTS_EACH, HERNIATIONS_EACH, MISCOUNTS = 3, 4, 6


class StaleScoresError(Exception):
    """The kept scores are not those of the released weights."""


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and write the page."""
    parser = argparse.ArgumentParser(prog="python -m ai_services.training.lumbar_mr.cross_validation_page")
    parser.add_argument("--data", type=Path, required=True, help="folder laid out like data/spider")
    parser.add_argument("--out", type=Path, required=True, help="folder that the grading stage wrote to")
    parser.add_argument("--page", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--pictures", type=Path, help="folder for the pictures; none are drawn without it")
    options = parser.parse_args(arguments)
    folder, unseen = read_folder(options.data), load_unseen(options.out)
    require_released(unseen, options.out)
    pipeline = _remembering(released())
    document = document_of(folder, unseen, pipeline)
    if options.pictures is not None:
        options.pictures.mkdir(parents=True, exist_ok=True)
        document["pictures"] = draw(folder, unseen, pipeline, options.pictures, options.page.parent)
    environment = Environment(  # noqa: S701 - Markdown from numbers and fixed words
        loader=PackageLoader("ai_services.evaluation"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    document["remarks"] = kept_remarks(options.page)
    options.page.write_text(environment.get_template("cross_validation.md").render(document), encoding="utf-8")


def kept_remarks(page: Path) -> str:
    """What a reader of the pictures wrote into the page, between its two marks; empty where there is no page yet."""
    parts = page.read_text(encoding="utf-8").split(REMARKS) if page.exists() else []
    return parts[1].strip() if len(parts) == 3 else ""


def require_released(unseen: Unseen, out: Path) -> None:
    """Refuse scores that belong to other weights than the released ones.

    Raises
    ------
    StaleScoresError
    """
    models = load_manifest("lumbar_mr").models
    trained = json.loads((out / "metrics.json").read_text(encoding="utf-8")).get("grading_sha256")
    found = {"segmentation": unseen.segmentation_sha256, "grading": trained}
    for role, digest in found.items():
        if digest != models[role].identity.sha256:
            raise StaleScoresError(
                f"{role}: the kept scores belong to {str(digest)[:12]}…, not to the released weights"
            )


def spoken_of(unseen: Unseen, sequence: str) -> Spoken:
    """Cross-validated discs of one sequence."""
    discs, rows = cross_validated(unseen, unseen.scores, unseen.sequences == sequence)
    return Spoken(discs, rows, unseen.levels[rows])


def document_of(folder: LabelledFolder, unseen: Unseen, pipeline: Pipeline) -> dict[str, Any]:
    """All figures of the page."""
    manifest = load_manifest("lumbar_mr")
    spoken = {sequence: spoken_of(unseen, sequence) for sequence in SEQUENCES}
    held_out = list(run_over(folder, pipeline, set(HELD_OUT)))
    masked = [result for result in held_out if result.outlines]
    t2 = spoken["t2"].discs
    return {
        "version": manifest.version,
        "models": {role: file.identity.sha256 for role, file in manifest.models.items()},
        "folds": FOLDS,
        "seed": SEED,
        "held_out": HELD_OUT,
        "discs": len(t2),
        "patients": len(np.unique(t2.patients)),
        "herniated": int((t2.form_truth == 2).sum()),
        "grading": _lines(grading_figures(t2)),
        "grading_counted": _lines(grading_figures(t2.where(np.isin(t2.patients, _counted_right(unseen, "t2"))))),
        "counting": _lines({f"{name} {key}": f for name in SEQUENCES for key, f in _counts(unseen, name).items()}),
        "held_out_segmentation": _lines(segmentation_figures(masked)),
        "held_out_counting": _lines(counting_figures(held_out)),
        "outlines": [
            (result.patient, [round(outline.dice, 3) for outline in result.outlines.values()]) for result in masked
        ],
        "subgroups": _subgroups(folder, spoken),
        "subgroup_names": [_named(key) for key in SUBGROUP_FIGURES],
        "pictures": {},
    }


def draw(folder: LabelledFolder, unseen: Unseen, pipeline: Pipeline, pictures: Path, beside: Path) -> dict[str, str]:
    """Draw the sheets; returns where each lies, seen from the page's folder."""
    spoken = spoken_of(unseen, "t2")

    @cache
    def of(patient: int) -> Shown:
        return shown(folder, patient, pipeline.segment)

    def classes(series: Series) -> NDArray[np.uint8]:
        return classes_of(pipeline.analyse(series).mask)

    sheets: dict[str, tuple[list[Any], int]] = {
        "patients": (patient_pictures(by_agreement(spoken, PATIENTS_EACH), spoken, of), PATIENTS_EACH),
        "herniations": (herniation_pictures(herniations(spoken, HERNIATIONS_EACH), spoken, of), HERNIATIONS_EACH),
        "counts": (count_pictures(miscounted(unseen, "t2", MISCOUNTS), of), MISCOUNTS // 2),
        "outlines": (outline_pictures(folder, HELD_OUT, classes), 4),
    }
    written = {}
    for name, (drawn, columns) in sheets.items():
        path = pictures / f"lumbar_mr_{name}.webp"
        write_sheet(drawn, columns, path)
        written[name] = Path(os.path.relpath(path, beside)).as_posix()
    return written


def _remembering(pipeline: Pipeline) -> Pipeline:
    """The pipeline, which looks at each series once."""
    seen: dict[tuple[int, str], Analysis] = {}

    def analyse(series: Series) -> Analysis:
        key = (series.patient, series.sequence)
        if key not in seen:
            seen[key] = pipeline.analyse(series)
        return seen[key]

    return Pipeline(analyse=analyse, segment=pipeline.segment)


def _counts(unseen: Unseen, sequence: str) -> dict[str, Figure]:
    """Discs found against discs graded, of patients who are not held out."""
    own = (unseen.count_sequences == sequence) & (unseen.counts[:, 2] > 0) & ~np.isin(unseen.counts[:, 0], HELD_OUT)
    extra = unseen.counts[own, 1] - unseen.counts[own, 2]
    return with_intervals(
        {
            "count_right": lambda i: float((extra[i] == 0).mean()),
            "one_more": lambda i: float((extra[i] == 1).mean()),
            "one_fewer": lambda i: float((extra[i] == -1).mean()),
        },
        unseen.counts[own, 0],
        SEED,
    )


def _counted_right(unseen: Unseen, sequence: str) -> NDArray[np.int64]:
    """Patients of whom as many discs were found as graded."""
    right = (unseen.count_sequences == sequence) & (unseen.counts[:, 1] == unseen.counts[:, 2])
    patients: NDArray[np.int64] = unseen.counts[right, 0]
    return patients


def _subgroups(folder: LabelledFolder, spoken: Mapping[str, Spoken]) -> list[dict[str, Any]]:
    """Every subgroup of the T2 discs, then both sequences; too few patients are counted, not measured."""
    lines = [_subgroup(GROUPS["sequence"], name, own, np.ones(len(own.rows), bool)) for name, own in spoken.items()]
    t2 = spoken["t2"]
    belongs = {int(patient): folder.subgroups_of(int(patient), "t2") for patient in np.unique(t2.discs.patients)}
    for kind in ("vendor", "field_strength", "sex"):
        words = np.array([belongs[int(patient)][kind] for patient in t2.discs.patients])
        lines += [_subgroup(GROUPS[kind], str(word), t2, words == word) for word in np.unique(words)]
    return lines


def _subgroup(kind: tuple[str, str], name: str, spoken: Spoken, keep: NDArray[np.bool_]) -> dict[str, Any]:
    own = spoken.discs.where(keep)
    patients = len(np.unique(own.patients))
    figures = grading_figures(own) if patients >= FEWEST_PATIENTS else {}
    told = [_told(figures.get(key)) for key in SUBGROUP_FIGURES]
    return {"kind": kind, "name": name, "patients": patients, "discs": len(own), "figures": told}


def _lines(figures: Mapping[str, Figure]) -> list[dict[str, Any]]:
    """Figures as lines of a table."""
    lines = []
    for key, figure in figures.items():
        zh, en = _named(key)
        goal = GOALS.get(key.removeprefix("t2 ") if key.startswith("t2 ") else key)
        reached = "" if goal is None or figure.value is None else _mark(key, figure.value, goal)
        lines.append({"zh": zh, "en": en, "told": _told(figure), "goal": goal, "reached": reached, "n": figure})
    return lines


def _mark(key: str, value: float, goal: float) -> str:
    better = value <= goal if key.endswith("calibration_error") else value >= goal
    return "✓" if better else "✗"


def _told(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return "–"
    digits = 1 if figure.value >= 10 else 3
    value = f"{figure.value:.{digits}f}"
    return value if figure.low is None else f"{value} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"


def _named(key: str) -> tuple[str, str]:
    """Chinese and English name of a figure, with its sequence where the key begins with one."""
    sequence, _, rest = key.rpartition(" ")
    if rest in NAMES:
        zh, en = NAMES[rest]
    else:
        first, _, measure = rest.partition("_")
        parts = NAMES.get(first, (first, first)), NAMES.get(measure, (measure, measure))
        zh, en = (f"{parts[0][side]} {parts[1][side]}" for side in (0, 1))
    return (f"{sequence} {zh}", f"{sequence} {en}") if sequence else (zh, en)


if __name__ == "__main__":
    main()
