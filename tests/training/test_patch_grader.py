"""Patch networks go on where they were stopped, join the feature grader in one graph, and pages show cases by rule."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.training

FEATURES = 12
LEVEL = 3


def discs_of(patients: int, each: int = 4):
    """SYNTHETIC discs: brightness tells every label."""
    from ai_services.training.lumbar_mr.graded_discs import TARGETS, GradedDiscs

    rng = np.random.default_rng(0)
    count = patients * each
    signal = rng.uniform(-1, 1, count).astype(np.float32)
    features = rng.normal(size=(count, FEATURES)).astype(np.float32)
    features[:, 0], features[:, LEVEL] = signal, np.tile(np.arange(each), patients)
    patches = np.repeat(rng.random((count, 1, 96, 128), dtype=np.float32), 5, axis=1) * (
        1 + signal[:, None, None, None]
    )
    patches[:, 1] = np.nan
    cuts = np.linspace(-0.6, 0.6, len(TARGETS))
    return GradedDiscs(
        patients=np.repeat(np.arange(1, patients + 1), each) + 300,
        sequences=np.array(["t2"] * count),
        levels=np.tile(np.arange(each), patients),
        patches=patches,
        features=features,
        names=tuple("level" if i == LEVEL else f"f{i}" for i in range(FEATURES)),
        truth=(signal[:, None] > cuts).astype(np.float32),
    )


def test_a_stopped_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    import torch

    from ai_services.training.lumbar_mr import patch_training

    discs = discs_of(10)
    table, rows = patch_training.PatchTable.of(discs), np.arange(len(discs.patients))
    monkeypatch.setattr(patch_training, "CHECKPOINT_STEPS", 1)

    def run(name: str) -> patch_training.PatchRun:
        return patch_training.PatchRun(table, rows, seed=1, epochs=6, checkpoint=tmp_path / name)

    whole = run("whole").finish()
    stopped = run("stopped")
    assert stopped.steps == 4
    step = stopped._step

    def step_until_two(picked):
        if stopped.done == 2:
            raise KeyboardInterrupt
        step(picked)

    stopped._step = step_until_two
    with pytest.raises(KeyboardInterrupt):
        stopped.finish()
    going_on = run("stopped")
    assert going_on.done == 2
    again = going_on.finish()
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    assert not (tmp_path / "stopped").exists()


def test_the_stage_trains_each_fold_once_and_its_graph_gives_both_graders_scores(tmp_path, monkeypatch):
    import onnxruntime

    from ai_services.training.lumbar_mr import blend_export, grading_stage, patch_training
    from ai_services.training.lumbar_mr.discs_file import save_discs
    from ai_services.training.lumbar_mr.graded_discs import Count
    from ai_services.training.lumbar_mr.unseen import load_unseen

    discs = discs_of(20)
    counts = [Count(int(patient), "t2", 4, 4) for patient in np.unique(discs.patients)]
    save_discs(discs, counts, "a" * 64, tmp_path)
    told = grading_stage.train_graders(tmp_path, network_seeds=(0,), epochs=0.1)
    assert told["networks"] == 5
    assert set(told["grading"]["cross_validation_t2"]) >= {"pfirrmann_accuracy", "herniation_auroc"}
    unseen = load_unseen(tmp_path)
    assert unseen.segmentation_sha256 == "a" * 64
    assert np.isfinite(unseen.scores).all()
    session = onnxruntime.InferenceSession(str(tmp_path / "grading.onnx"), providers=["CPUExecutionProvider"])
    assert {node.name for node in session.get_inputs()} == {"features", "patches"}
    patches = discs.patches[:3].astype(np.float16).astype(np.float32)
    (scores,) = session.run(None, {"features": discs.features[:3], "patches": patches})
    changed = patches.copy()
    changed[:, 0] = 1 - changed[:, 0]
    (others,) = session.run(None, {"features": discs.features[:3], "patches": changed})
    assert np.abs(scores - others).max() > 1e-3  # the networks do look at the patches

    def never(*_args, **_kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(patch_training.PatchRun, "finish", never)
    monkeypatch.setattr(blend_export, "NETWORK_SHARE", 0.9)  # the graph no longer says what `blended` says
    with pytest.raises(blend_export.ParityError):
        grading_stage.train_graders(tmp_path, network_seeds=(0,), epochs=0.1)


def test_scores_of_other_weights_are_refused(tmp_path):
    from ai_services.training.lumbar_mr.cross_validation_page import StaleScoresError, require_released
    from ai_services.training.lumbar_mr.unseen import unseen_of

    discs = discs_of(5)
    (tmp_path / "metrics.json").write_text(json.dumps({"grading_sha256": "b" * 64}))
    unseen = unseen_of(discs, discs.truth, [], "a" * 64)
    with pytest.raises(StaleScoresError, match="segmentation"):
        require_released(unseen, tmp_path)


def test_the_worst_cases_are_shown_whoever_they_are():
    from ai_services.training.lumbar_mr.case_selection import by_agreement, herniations, miscounted
    from ai_services.training.lumbar_mr.cross_validation_page import spoken_of
    from ai_services.training.lumbar_mr.graded_discs import Count
    from ai_services.training.lumbar_mr.unseen import unseen_of

    discs = discs_of(20, each=5)
    scores = (4 * (2 * discs.truth - 1)).astype(np.float32)
    worst = discs.patients == 307
    scores[worst] *= -1
    counts = [Count(int(p), "t2", 5 + (p == 303) - 3 * (p == 305), 5) for p in np.unique(discs.patients)]
    unseen = unseen_of(discs, scores, [*counts, Count(5, "t2", 1, 9)], "a" * 64)
    spoken = spoken_of(unseen, "t2")
    groups = by_agreement(spoken, 2)
    assert groups["worst"][0] == 307
    assert 307 not in groups["median"] + groups["best"]
    assert miscounted(unseen, "t2", 4) == [(305, 2, 5), (303, 6, 5)]  # a held-out patient is not cross-validated
    chosen = herniations(spoken, 2)
    probability = spoken.discs.probabilities["herniation"]
    assert probability[chosen["highest"][0]] == probability[spoken.discs.labels["herniation"]].max()
    assert not spoken.discs.labels["herniation"][chosen["false"]].any()


def test_pictures_have_outlines_where_the_structures_are(tmp_path: Path):
    from PIL import Image

    from ai_services.evaluation.contact_sheet import COLOURS, INK, Note, Plane, draw_plane, save, sheet, with_notes

    grey = np.random.default_rng(0).random((200, 160)).astype(np.float32)
    classes = np.zeros((100, 80), dtype=np.uint8)
    classes[40:60, 20:50] = 2
    plane = Plane(grey, (1.0, 1.0), classes, (2.0, 2.0))
    plain, outlined = draw_plane(plane)
    drawn = np.argwhere((outlined == COLOURS[2]).all(axis=2))
    assert len(drawn) > 100
    assert not (plain == COLOURS[2]).all(axis=2).any()
    height_mm = (drawn[:, 0].max() - drawn[:, 0].min()) * (60 / plain.shape[0])  # 40 mm of disc, 10 mm above and below
    assert abs(height_mm - 40) < 3
    picture = with_notes(plane, (("#1", INK),), (Note(100.0, (("III", INK),)),))
    save(sheet([picture, picture, picture], 2), tmp_path / "sheet.webp")
    with Image.open(tmp_path / "sheet.webp") as stored:
        assert stored.size[0] > 2 * picture.shape[1]
