"""The registry names the released models; a weights file that is not the released one is refused."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from ai_services.models.registry import list_pipelines, load_manifest
from ai_services.models.runtime import ModelIntegrityError, open_session


def test_each_pipeline_has_a_manifest_whose_weights_are_the_released_ones():
    for name in list_pipelines():
        manifest = load_manifest(name)
        assert manifest.name == name
        assert manifest.intended_use_en
        assert manifest.intended_use_zh
        for file in manifest.models.values():
            assert hashlib.sha256(file.path.read_bytes()).hexdigest() == file.identity.sha256


def test_the_weights_together_stay_below_twenty_megabytes():
    assert sum(file.path.stat().st_size for file in load_manifest("lumbar_mr").models.values()) < 20_000_000


def test_an_unknown_pipeline_is_an_error():
    with pytest.raises(KeyError):
        load_manifest("no_such_pipeline")


@pytest.mark.parametrize("role", ["segmentation", "grading"])
def test_one_changed_byte_in_the_weights_is_refused(tmp_path, role):
    file = load_manifest("lumbar_mr").models[role]
    content = bytearray(file.path.read_bytes())
    content[len(content) // 2] ^= 1
    poisoned = tmp_path / "poisoned.onnx"
    poisoned.write_bytes(bytes(content))
    with pytest.raises(ModelIntegrityError):
        open_session(poisoned, file.identity.sha256)
    with pytest.raises(ModelIntegrityError):
        open_session(tmp_path / "missing.onnx", file.identity.sha256)


def test_a_poisoned_model_ends_the_run_with_a_reason(monkeypatch, tmp_path):
    from ai_services.imaging.phantom import lumbar_phantom
    from ai_services.pipelines.lumbar_mr import infer
    from ai_services.pipelines.lumbar_mr.pipeline import run
    from ai_services.prediction import PipelineError
    from tests.builders.mr_series import mr_series

    manifest = load_manifest("lumbar_mr")
    poisoned = tmp_path / "segmentation.onnx"
    poisoned.write_bytes(b"not a model")
    bad = dataclasses.replace(manifest.models["segmentation"], path=poisoned)
    changed = dataclasses.replace(manifest, models={**manifest.models, "segmentation": bad})
    monkeypatch.setattr(infer, "load_manifest", lambda _: changed)
    infer.load_networks.cache_clear()
    phantom = lumbar_phantom(0, slices=3)
    try:
        with pytest.raises(PipelineError) as caught:
            run(mr_series(phantom.pixels, phantom.affine_lps))
    finally:
        infer.load_networks.cache_clear()
    assert caught.value.reason_code == "model-integrity"
