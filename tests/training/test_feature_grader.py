"""The feature grader learns, repeats by its seed, and its ONNX graph gives the same scores, also for missing values."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def table() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(240, 12)).astype(np.float32)
    signal = features[:, 0] + 0.3 * rng.normal(size=240)
    truth = np.stack([signal > cut for cut in np.linspace(-1, 1, 9)], axis=1).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    return features, truth


def test_export_agrees_with_the_models_and_the_seed_repeats(table, tmp_path):
    from sklearn.metrics import roc_auc_score

    from ai_services.training.lumbar_mr.feature_export import export_feature_grader
    from ai_services.training.lumbar_mr.feature_grader import fit

    features, truth = table
    first = fit(features[:160], truth[:160], np.ones(160), seed=3, seeds=2)
    again = fit(features[:160], truth[:160], np.ones(160), seed=3, seeds=2)
    np.testing.assert_array_equal(first.scores(features), again.scores(features))
    assert roc_auc_score(truth[160:, 4], first.scores(features[160:])[:, 4]) > 0.8
    export_feature_grader(first, tmp_path / "grading.onnx", features)  # raises where a score differs


def test_a_graph_that_differs_is_refused(table, tmp_path, monkeypatch):
    from ai_services.training.lumbar_mr import feature_export
    from ai_services.training.lumbar_mr.feature_grader import fit

    features, truth = table
    grader = fit(features, truth, np.ones(240), seed=0, seeds=1)
    monkeypatch.setattr(feature_export, "_not_above", lambda threshold: threshold + 1.0)
    with pytest.raises(feature_export.ParityError):
        feature_export.export_feature_grader(grader, tmp_path / "grading.onnx", features)


def test_folds_are_by_patient_and_leave_the_held_out_alone():
    from ai_services.training.lumbar_mr.splits import HELD_OUT, fold_of_patients

    herniated = {patient: patient % 5 == 0 for patient in range(1, 120)}
    fold = fold_of_patients(herniated)
    assert not set(fold) & set(HELD_OUT)
    assert fold == fold_of_patients(dict(reversed(herniated.items())))
    positive = np.bincount([number for patient, number in fold.items() if herniated[patient]])
    assert positive.max() - positive.min() <= 1
