"""int8 and fp16 variants of the segmentation beside the released weights, and the released weights beside torch.

Parts `variants` and `parity` of `foramen bench ai`; they need the training libraries (onnx, for parity torch and
MONAI). A variant is worth a release only where it says the same (`PARITY`) and is faster on this machine.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foramen.commands.bench_ai_figures import Facts, Figure, Sizes
from foramen.commands.bench_ai_phantoms import phantoms
from foramen.commands.bench_page import Tell
from foramen.kernel.settings import get_settings

if TYPE_CHECKING:
    from ai_services.imaging.volume import Volume
    from ai_services.models.registry import Manifest
    from ai_services.pipelines.lumbar_mr.infer import Networks
    from ai_services.pipelines.lumbar_mr.pipeline import Analysis

PARITY = {"least Dice": 0.995, "same findings": 1.0, "speed": 1.1}
"""A variant is accepted where every structure of every study reaches this Dice with the released weights' outline,
every called finding is the same, and it is at least this many times as fast."""
_CALIBRATION_SEEDS = range(101, 107)
_TRAINED_ON = ("7", "18", "34", "65")
_UNSEEN = ("5", "41", "45", "52", "57", "110")
_TORCH_TOLERANCE = 1e-3


def variant_figures(sizes: Sizes, facts: Facts, tell: Tell) -> Iterator[Figure]:
    """Speed and parity of the variants; what cannot be measured is said in the facts."""
    from ai_services.models.registry import load_manifest

    try:
        import onnx  # noqa: F401
    except ImportError:
        facts["not measured"] = "onnx is not installed (make setup-train)"
        return
    from ai_services.pipelines.lumbar_mr.pipeline import analyse

    manifest = load_manifest("lumbar_mr")
    volumes = _volumes(facts)
    with tempfile.TemporaryDirectory(prefix="foramen-bench-") as name:
        tell("  making int8 and fp16 from the released weights")
        released = manifest.models["segmentation"].path
        paths = {"fp32": released, "int8": _int8(released, Path(name)), "fp16": _fp16(released, Path(name))}
        networks = {kind: _networks(manifest, path) for kind, path in paths.items()}
        tell(f"  {sizes.repeats + 1} rounds of {', '.join(networks)}")
        seconds = _seconds(networks, volumes[0], sizes.repeats)
        for kind, values in seconds.items():
            yield Figure(f"segmentation of 15 slices, {kind}, 1 thread", "s", statistics.median(values))
        tell(f"  outlines and findings of {len(volumes)} studies, fp32")
        expected = [analyse(volume, networks["fp32"]) for volume in volumes]
        for kind in ("int8", "fp16"):
            tell(f"  outlines and findings of {len(volumes)} studies, {kind}")
            found = [analyse(volume, networks[kind]) for volume in volumes]
            yield from _compared(kind, expected, found, seconds, facts)


def _compared(
    kind: str,
    expected: Sequence[Analysis],
    found: Sequence[Analysis],
    seconds: dict[str, list[float]],
    facts: Facts,
) -> Iterator[Figure]:
    """Least Dice of any structure, share of findings that are the same, and the verdict."""
    dice, same = [], []
    for one, other in zip(expected, found, strict=True):
        dice += [_dice(one.mask == segment.number, other.mask == segment.number) for segment in one.segments]
        called = {(item.code, item.level): item.value for item in other.findings if isinstance(item.value, str)}
        same += [
            called.get((item.code, item.level)) == item.value for item in one.findings if isinstance(item.value, str)
        ]
    measured = {
        "least Dice": min(dice),
        "same findings": statistics.mean(same),
        "speed": statistics.median(seconds["fp32"]) / statistics.median(seconds[kind]),
    }
    failed = [name for name, least in PARITY.items() if measured[name] < least]
    facts[f"{kind} accepted"] = "yes" if not failed else f"no: {', '.join(failed)}"
    units = {"least Dice": "Dice", "same findings": "share", "speed": "times"}
    for name, value in measured.items():
        yield Figure(f"{kind} against fp32: {name}", units[name], value, PARITY[name])


def _volumes(facts: Facts) -> list[Volume]:
    """Three phantoms, and real T2 SPACE patients that no released model was trained on, where the data is."""
    from ai_services.imaging.geometry import volume_from_datasets

    real = _real(_UNSEEN)
    facts["measured on"] = f"3 SYNTHETIC phantoms, {len(real)} real T2 SPACE patients kept out of training"
    return [*(volume_from_datasets(study.instances).volume for study in phantoms(3)), *real]


def _real(patients: Sequence[str]) -> list[Volume]:
    """Volumes of real patients; none where the data folder is not."""
    from ai_services.imaging.geometry import volume_from_datasets
    from foramen.ingest.spider import spider_patient_series

    data = get_settings().test_data
    if not (data / "spider" / "t2_space").is_dir():
        return []
    return [volume_from_datasets(spider_patient_series(data, patient)).volume for patient in patients]


def _networks(manifest: Manifest, path: Path) -> Networks:
    """The released networks with another segmentation, one thread."""
    import hashlib

    from ai_services.models import runtime
    from ai_services.pipelines.lumbar_mr.infer import Networks

    runtime.configure(runtime.Execution("cpu", 1))
    file = manifest.models["segmentation"]
    identity = replace(file.identity, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    models = {**manifest.models, "segmentation": replace(file, identity=identity, path=path)}
    return Networks(replace(manifest, models=models))


def _seconds(networks: dict[str, Networks], volume: Volume, repeats: int) -> dict[str, list[float]]:
    """By turns; the first round is not counted."""
    from ai_services.pipelines.lumbar_mr.preprocess import prepare

    prepared = prepare(volume)
    seconds: dict[str, list[float]] = {kind: [] for kind in networks}
    for number in range(repeats + 1):
        for kind, loaded in networks.items():
            began = time.perf_counter()
            loaded.segment(prepared.working, prepared.spacing_mm[0])
            if number:
                seconds[kind].append(time.perf_counter() - began)
    return seconds


def _int8(released: Path, folder: Path) -> Path:
    """Static quantisation (QDQ): weights by channel, activations calibrated on phantoms and training patients.

    The layers at full resolution before the first pooling and the last one stay as they are: with them the outlines
    of some structures fall below the Dice that is asked for.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Slices(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._slices = iter(_slices())

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(({"image": item} for item in self._slices), None)

    prepared, quantised = folder / "prepared.onnx", folder / "int8.onnx"
    quant_pre_process(str(released), str(prepared), skip_symbolic_shape=True)
    convolutions = [node.name for node in onnx.load(str(prepared)).graph.node if node.op_type == "Conv"]
    quantize_static(
        str(prepared),
        str(quantised),
        Slices(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=[name for name in convolutions if name.startswith("/conv_0")] + convolutions[-1:],
    )
    return quantised


def _fp16(released: Path, folder: Path) -> Path:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    path = folder / "fp16.onnx"
    onnx.save(convert_float_to_float16(onnx.load(str(released)), keep_io_types=True), str(path))
    return path


def _slices() -> Iterator[NDArray[np.float32]]:
    from ai_services.imaging.geometry import volume_from_datasets
    from ai_services.pipelines.lumbar_mr.preprocess import prepare
    from foramen.demo.studies import phantom_study

    drawn = [volume_from_datasets(phantom_study("DEMO", seed).instances).volume for seed in _CALIBRATION_SEEDS]
    for volume in (*drawn, *_real(_TRAINED_ON)):
        working = prepare(volume).working
        yield from (_padded(working[index]) for index in range(3, len(working), 4))


def _padded(image: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = image.shape
    return np.pad(image, ((0, -rows % 16), (0, -columns % 16)))[None, None]


def parity_figures(sizes: Sizes, facts: Facts, tell: Tell) -> Iterator[Figure]:
    """Largest difference of a score between ONNX Runtime and torch with the same weights."""
    try:
        import onnx
        import torch
        from onnx import numpy_helper

        from ai_services.training.lumbar_mr.segmentation import build_network
    except ImportError:
        facts["not measured"] = "torch, MONAI and onnx are not installed (make setup-train)"
        return
    from ai_services.models import runtime
    from ai_services.models.registry import load_manifest
    from ai_services.pipelines.lumbar_mr.preprocess import prepare

    path = load_manifest("lumbar_mr").models["segmentation"].path
    weights = {
        item.name: torch.from_numpy(numpy_helper.to_array(item).copy())
        for item in onnx.load(str(path)).graph.initializer
    }
    network = build_network()
    try:
        network.load_state_dict({name: weights[name] for name in network.state_dict()})
    except (KeyError, RuntimeError):
        facts["not measured"] = "the released graph is not the network that the training builds"
        return
    network.eval()
    session = runtime.session_of(path.read_bytes(), runtime.Execution("cpu", 1))
    largest = 0.0
    for volume in _volumes(facts):
        image = _padded(prepare(volume).working[len(volume.array) // 2])
        with torch.inference_mode():
            expected = network(torch.from_numpy(image)).numpy()
        largest = max(largest, float(np.abs(session.run(None, {"image": image})[0] - expected).max()))
    facts["compared"] = "the segmentation's scores of each study's middle slice"
    yield Figure("ONNX against torch: largest difference of a score", "", largest, _TORCH_TOLERANCE)


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    total = int(one.sum() + other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0
