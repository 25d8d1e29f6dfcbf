"""A device is the one that was asked for, or the worker says so and ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from structlog.testing import capture_logs

from ai_services import worker
from ai_services.imaging.phantom import lumbar_phantom
from ai_services.models.registry import load_manifest
from ai_services.models.runtime import (
    DeviceError,
    Execution,
    configure,
    current_execution,
    device_of,
    session_of,
)
from ai_services.pipelines.lumbar_mr import infer, outline
from ai_services.pipelines.lumbar_mr.infer import Networks
from ai_services.prediction import PipelineError
from ai_services.results.run_record import observe_computation
from ai_services.workflow import analyse, spool
from ai_services.workflow import services as worker_services
from foramen.kernel.log import get_log
from foramen.kernel.settings import Settings
from tests.builders.mr_series import mr_series
from tests.builders.prediction import prediction, source_datasets

OFFERS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def test_auto_takes_the_best_there_is_and_a_wrong_name_nothing() -> None:
    assert device_of(Execution("auto")) == ("cuda" if OFFERS_CUDA else "cpu")
    assert device_of(Execution("cpu")) == "cpu"
    with pytest.raises(DeviceError, match="one of"):
        device_of(Execution("tpu"))


def test_threads_change_no_answer_beyond_rounding() -> None:
    content = load_manifest("lumbar_mr").models["segmentation"].path.read_bytes()
    image = np.random.default_rng(1).random((1, 1, 64, 64), dtype=np.float32)
    one, two = (session_of(content, Execution("cpu", n)).run(None, {"image": image})[0] for n in (1, 2))
    np.testing.assert_allclose(one, two, atol=1e-4)


@pytest.fixture
def cuda_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """ONNX Runtime names CUDA, as onnxruntime-gpu does on a machine without driver or card; the sessions are real."""
    if OFFERS_CUDA:
        pytest.skip("this ONNX Runtime offers CUDA")
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    before = current_execution()
    yield
    monkeypatch.undo()
    configure(before)


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_auto_falls_back_says_so_and_the_record_names_what_was_used(cuda_that_does_not_load: None) -> None:
    assert configure(Execution("auto", 1)) == "cuda", "offered, so it is tried"
    manifest = load_manifest("lumbar_mr")
    with capture_logs() as told:
        networks = Networks(manifest)
    assert {line["event"] for line in told} == {"CUDA is offered but does not load: the model runs on the CPU"}
    assert set(networks.providers.values()) == {"CPUExecutionProvider"}
    made = replace(prediction(), providers=networks.providers)
    computed = observe_computation(made, source_datasets(), manifest)
    assert computed.device.startswith("cpu; ")
    assert json.loads(computed.settings) == {"asked": "auto", "providers": networks.providers, "threads": 1}
    on_a_card = replace(made, providers={**networks.providers, "grading": "CUDAExecutionProvider"})
    assert observe_computation(on_a_card, [], manifest).device.startswith("cuda; ")
    assert observe_computation(prediction(), [], manifest).device.startswith("none; "), "no model ran"


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_cuda_by_name_that_does_not_load_is_refused_at_the_start_and_with_a_reason_in_a_run(
    cuda_that_does_not_load: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = worker_services.Services(Settings(home=tmp_path, worker_device="cuda"), "worker", *([None] * 3))  # type: ignore[arg-type]
    with capture_logs() as told:
        assert not worker.has_device(services, get_log())
    assert [line["reason"] for line in told] == ["CUDA was asked for, and its libraries do not load here"]
    # A card that is lost later: the study is answered, with the reason, and may be asked for again.
    monkeypatch.setattr(worker_services, "current", lambda: services)
    monkeypatch.setattr(infer, "load_networks", lru_cache(lambda: Networks(load_manifest("lumbar_mr"))))
    monkeypatch.setattr(outline, "load_networks", infer.load_networks)
    phantom = lumbar_phantom(0, slices=5, rows=224, columns=192, spacing_mm=(5.0, 1.4, 1.4))
    spool.save_series("run", mr_series(phantom.pixels, phantom.affine_lps))
    with pytest.raises(PipelineError) as refused:
        analyse.compute("run", {"study_instance_uid": "1.2.3", "model": None}, "1.2.3.1")
    assert (refused.value.reason_code, refused.value.retryable) == ("device-unavailable", True)


@pytest.mark.skipif(OFFERS_CUDA, reason="this ONNX Runtime offers CUDA")
def test_a_worker_that_lacks_its_device_ends_and_says_why(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "FORAMEN_HOME": str(tmp_path),
        "FORAMEN_WORKER_DEVICE": "cuda",
        "FORAMEN_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    }
    done = subprocess.run(
        [sys.executable, "-m", "foramen", "worker"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    told = [json.loads(line) for line in (done.stdout + done.stderr).splitlines() if line.startswith("{")]
    assert any("CUDA was asked for" in str(line.get("reason")) for line in told)
