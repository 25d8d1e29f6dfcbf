"""Training runs: the same numbers on one process or two, straight through or killed and resumed; refusals by name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from ai_services.training.dataset_version import load, make_version, save
from ai_services.training.engine.recipe import RecipeError, recipe_of
from ai_services.training.tracking.run_record import claimed
from foramen.supervisor.ports import free_port
from tests.builders.patience import patience
from tests.builders.training_data import labelled_phantoms

pytestmark = pytest.mark.training

RECIPE = {
    "name": "tiny",
    "architecture": "dynunet",
    "crop": [64, 48],
    "spacing_mm": 4.0,
    "batch": 4,
    "steps": 6,
    "precision": "fp32",
    "checkpoint_every": 2,
    "evaluate_every": 6,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Twelve SYNTHETIC patients with two labelled slices each; folder and manifest."""
    folder = labelled_phantoms(tmp_path_factory.mktemp("data"))
    version = make_version(
        folder, name="tiny", licence="none", source="SYNTHETIC", created="2026-11-23T00:00:00Z", created_by="test"
    )
    assert version.splits["validation"], "the seed puts nobody aside"
    return folder, save(folder, version)


def command(data: tuple[Path, Path], out: Path, processes: int = 1, **changes: Any) -> list[str]:
    out.mkdir(parents=True, exist_ok=True)
    recipe = out / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, **changes}))
    engine = ["-m", "ai_services.training.engine", "--recipe", str(recipe), "--data", str(data[0])]
    engine += ["--manifest", str(data[1]), "--out", str(out), "--threads", "1"]
    if processes == 1:
        return [sys.executable, *engine]
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-addr=127.0.0.1"]
    return [sys.executable, *launcher, f"--master-port={free_port()}", *engine]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=environment, check=False)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of two small matrices cost more than they give."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def losses(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


def train_here(data: tuple[Path, Path], out: Path, **changes: Any) -> dict[str, float]:
    """A run on one process: this one, which has PyTorch loaded already."""
    import torch

    from ai_services.training.engine.loop import Run, train
    from ai_services.training.engine.parallel import Place

    return train(Run(recipe_of({**RECIPE, **changes}), load(data[1]), data[0], out), Place(0, 1, torch.device("cpu")))


@pytest.fixture(scope="module")
def alone(data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of the run on one process."""
    out = tmp_path_factory.mktemp("alone")
    last = train_here(data, out)
    assert 0 < last["validation_dice"] < 1
    assert [path.name for path in sorted((out / "checkpoints").iterdir())] == [f"{n:08d}.pt" for n in (2, 4, 6)]
    found = losses(out)
    assert found[6] < found[1]
    return found


@pytest.mark.parametrize(("parallel", "accumulate"), [("ddp", 2), ("fsdp", 1), ("pipeline", 4)])
def test_two_processes_compute_what_one_computes(
    data: tuple[Path, Path], alone: dict[int, float], tmp_path: Path, parallel: str, accumulate: int
) -> None:
    told = run(command(data, tmp_path, 2, parallel=parallel, accumulate=accumulate))
    assert told.returncode == 0, told.stderr
    assert losses(tmp_path) == pytest.approx(alone, abs=2e-4)
    # What the processes gathered is the whole state: one process goes on from the middle as if it had been alone.
    for step in (4, 6):
        (tmp_path / "checkpoints" / f"{step:08d}.pt").unlink()
    train_here(data, tmp_path, parallel=parallel, accumulate=accumulate)
    assert losses(tmp_path) == pytest.approx(alone, abs=2e-4)


def test_the_layers_of_a_pipeline_in_their_order_are_the_network() -> None:
    import torch

    from ai_services.training.engine.architectures import build
    from ai_services.training.engine.pipeline_stages import layers_of

    recipe = recipe_of(RECIPE)
    network = build(recipe)
    image = torch.rand(1, 1, 64, 48)
    expected, answer, maps = network(image), image, []
    for kind, block in layers_of(network):
        answer = block(answer, maps.pop()) if kind == "up" else block(answer)
        maps += [answer] if kind == "down" else []
    assert torch.equal(answer, expected)
    with pytest.raises(RecipeError, match="dynunet"):
        layers_of(build(recipe_of({**RECIPE, "architecture": "unet"})))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_keeps_whole_weights_and_nearly_the_same_losses(
    data: tuple[Path, Path], alone: dict[int, float], tmp_path: Path, precision: str
) -> None:
    import torch

    train_here(data, tmp_path, precision=precision)
    assert losses(tmp_path) == pytest.approx(alone, rel=0.03)
    assert losses(tmp_path) != pytest.approx(alone, abs=1e-6)
    kept = torch.load(tmp_path / "checkpoints" / "00000006.pt", weights_only=True)
    assert {item.dtype for item in kept["model"].values()} == {torch.float32}
    assert bool(kept["scaler"]) == (precision == "fp16")


def test_a_run_whose_process_was_killed_starts_again_by_itself(
    data: tuple[Path, Path], alone: dict[int, float], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "checkpoint_every": 1}))
    arguments = [sys.executable, "-m", "foramen", "train", recipe, "--data", data[0], "--manifest", data[1]]
    arguments += ["--out", tmp_path / "run", "--threads", "1", "--processes", "2", "--restarts", "1"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "FORAMEN_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(list(map(str, [*arguments, "--tracking", "none"])), env=environment)
    wait_for_file(process, tmp_path / "run" / "checkpoints" / "00000001.pt")
    ranks = [item for item in psutil.Process(process.pid).children(recursive=True) if "RANK" in item.environ()]
    next(item for item in ranks if item.environ()["RANK"] == "1").kill()
    assert process.wait(240) == 0
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(told["sessions"]) == 2
    assert told["sessions"][1]["from_step"] >= 1
    assert losses(tmp_path / "run") == pytest.approx(alone, abs=2e-4)


def wait_for_file(process: subprocess.Popen[bytes], path: Path) -> None:
    deadline = time.monotonic() + patience(120)
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_run_goes_on_with_the_same_numbers_on_another_number_of_processes(
    data: tuple[Path, Path], alone: dict[int, float], tmp_path: Path
) -> None:
    process = subprocess.Popen(command(data, tmp_path, steps=6), stderr=subprocess.DEVNULL)
    wait_for_file(process, tmp_path / "checkpoints" / "00000002.pt")
    process.send_signal(signal.SIGKILL)
    process.wait()
    # A kill in the middle of writing leaves a file that cannot be read: it is passed over.
    (tmp_path / "checkpoints" / "00000005.pt").write_bytes(b"half written")
    told = run(command(data, tmp_path, 2))
    assert told.returncode == 0, told.stderr
    assert losses(tmp_path) == pytest.approx(alone, abs=2e-4)
    from ai_services.training.engine.checkpoint import CheckpointError

    with pytest.raises(CheckpointError, match="another recipe"):
        train_here(data, tmp_path, rate=0.5)


def test_a_run_killed_when_its_checkpoint_stands_has_told_the_step(
    data: tuple[Path, Path], alone: dict[int, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai_services.training.engine import checkpoint

    class KilledError(BaseException):
        """Ends the run where a kill would."""

    save_checkpoint = checkpoint.save

    def save_and_die(folder: Path, kept: checkpoint.Checkpoint) -> Path:
        save_checkpoint(folder, kept)
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save_and_die)
        with pytest.raises(KilledError):
            train_here(data, tmp_path)
    train_here(data, tmp_path)
    assert losses(tmp_path) == pytest.approx(alone, abs=2e-4)


def test_what_a_run_cannot_do_is_refused_by_name_and_leaves_nothing(
    data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ai_services.training.engine.__main__ import main

    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert main(command(data, tmp_path, accumulate=3)[3:]) == 2
        assert "accumulate has to divide" in capsys.readouterr().err
        with claimed(tmp_path):
            assert main(command(data, tmp_path)[3:]) == 2
        assert "another process trains" in capsys.readouterr().err
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert not (tmp_path / "checkpoints").exists()


def test_the_data_decides_what_the_recipe_leaves_to_it(data: tuple[Path, Path], tmp_path: Path) -> None:
    # Slices of 448 x 352 pixels of 0.47 mm; at 4 mm they are 53 x 41, and the crop a multiple of 16.
    train_here(data, tmp_path, crop="auto", steps=1)
    kept = json.loads((tmp_path / "run.json").read_text())["recipe"]
    assert (kept["crop"], kept["spacing_mm"]) == ([64, 48], 4.0)


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "batch", "decided"),
    [
        ((448, 352), None, 2, ((448, 352), 0.46875)),
        ((448, 352), 0.94, 2, ((224, 176), 0.94)),
        ((1024, 512), None, 8, ((512, 256), 0.46875)),  # 1 MiPixel a batch, of the shape of the data
        ((20, 600), None, 2, ((32, 608), 0.46875)),
    ],
)
def test_a_crop_keeps_the_shape_of_the_data_and_a_batch_its_size(
    shape: tuple[int, int], spacing_mm: float | None, batch: int, decided: Any
) -> None:
    from ai_services.training.engine.self_configuration import Fingerprint, configured

    document = {**RECIPE, "crop": "auto", "spacing_mm": spacing_mm or "auto", "batch": batch}
    made = configured(recipe_of(document), Fingerprint(shape, 0.46875))
    assert (made.crop, made.spacing_mm) == decided


@pytest.mark.parametrize("architecture", ["unet", "segresnet", "dynunet"])
def test_each_segmentation_network_takes_odd_crops_and_answers_alike_in_onnx(tmp_path: Path, architecture: str) -> None:
    import torch

    from ai_services.training.engine.architectures import build
    from ai_services.training.engine.self_configuration import strides_of
    from ai_services.training.lumbar_mr.export import export_segmentation

    assert strides_of((512, 64)) == [(2, 2), (2, 2), (2, 2), (2, 1)]
    document = {**RECIPE, "architecture": architecture, "crop": [512, 64]}
    if architecture == "segresnet":
        document["options"] = {"init_filters": 8}
    network = build(recipe_of(document)).eval()
    assert network(torch.rand(1, 1, 512, 64)).shape == (1, 4, 512, 64)
    export_segmentation(network, tmp_path / "network.onnx")  # refuses a difference above its tolerance


def test_graders_score_discs_and_discs_of_one_patient_know_each_other() -> None:
    import torch

    from ai_services.training.engine.architectures import build

    resnet = build(recipe_of({"name": "grades", "architecture": "resnet"})).eval()
    assert resnet(torch.rand(3, 4, 64, 64)).shape == (3, 7)
    together = build(recipe_of({"name": "grades", "architecture": "disc-sequence"})).eval()
    discs = torch.rand(2, 5, 4, 64, 64)
    with torch.inference_mode():
        scores = together(discs)
        assert scores.shape == (2, 5, 7)
        changed = discs.clone()
        changed[0, 4] = 0
        again = together(changed)
    assert not torch.allclose(again[0, 0], scores[0, 0])
    assert torch.allclose(again[1], scores[1])
