"""Parts `models` and `throughput` of `foramen bench ai`: one study at a time, and many on all cores."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from foramen.commands.bench_ai_figures import Facts, Figure, Sizes
from foramen.commands.bench_ai_phantoms import phantoms
from foramen.commands.bench_page import Tell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from ai_services.imaging.volume import Volume
    from ai_services.models.registry import Manifest
    from ai_services.pipelines.lumbar_mr.infer import Networks
    from ai_services.pipelines.lumbar_mr.pipeline import Analysis
    from ai_services.pipelines.lumbar_mr.preprocess import Prepared

_BATCHES = (1, 5, 15)
_GOALS = {
    "preprocessing of an image": 0.3,
    "preprocessing of a study": 2.0,
    "recognition of a study, cpu": 3.0,
}


def model_figures(sizes: Sizes, facts: Facts, tell: Tell) -> Iterator[Figure]:
    """Preprocessing, recognition and slices a call, in rounds, on each device that there is."""
    from ai_services.models import runtime
    from ai_services.models.registry import load_manifest
    from ai_services.pipelines.lumbar_mr.infer import Networks

    files = [_as_file(dataset) for dataset in phantoms(1)[0].instances]
    measured: dict[str, Callable[[], object]] = {
        "preprocessing of an image": lambda: _prepare(files[7:8]),
        "preprocessing of a study": lambda: _prepare(files),
    }
    manifest = load_manifest("lumbar_mr")
    for device in devices():
        runtime.configure(runtime.Execution(device))
        measured[f"recognition of a study, {device}"] = partial(_recognise, files, Networks(manifest))
    working = _working(files)
    for size in _BATCHES:
        measured[f"segmentation of 15 slices, {size} a call, 1 thread"] = _calls(manifest, working, size)
    seconds = _rounds(measured, sizes.repeats, tell)
    facts["recognition"] = f"DICOM files to outlines and findings on {runtime.THREADS} CPU threads, a slice a thread"
    facts["stages of one recognition"] = _stages(measured["recognition of a study, cpu"])
    for name, values in seconds.items():
        yield Figure(name, "s", statistics.median(values), _GOALS.get(name), tuple(values))


def _stages(recognise: Callable[[], object]) -> str:
    analysis: Analysis = recognise()  # type: ignore[assignment]
    return ", ".join(f"{stage} {spent:.2f} s" for stage, spent in analysis.seconds.items())


def _rounds(measured: dict[str, Callable[[], object]], repeats: int, tell: Tell) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for number in range(repeats + 1):
        tell(f"  round {number} of {repeats}" if number else "  round to warm up")
        for name, work in measured.items():
            began = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def _as_file(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _volume(files: Sequence[bytes]) -> Volume:
    """Parsed and decoded anew each time, as from the archive."""
    import pydicom

    from ai_services.imaging.geometry import volume_from_datasets

    return volume_from_datasets([pydicom.dcmread(BytesIO(content)) for content in files]).volume


def _prepare(files: Sequence[bytes]) -> Prepared:
    from ai_services.pipelines.lumbar_mr.preprocess import prepare

    return prepare(_volume(files))


def _recognise(files: Sequence[bytes], networks: Networks) -> Analysis:
    """DICOM files → outlines and findings, preprocessing included."""
    from ai_services.pipelines.lumbar_mr.pipeline import analyse

    return analyse(_volume(files), networks)


def _working(files: Sequence[bytes]) -> NDArray[np.float32]:
    """Slices as the segmentation takes them, shape (slice, 1, row, column)."""
    import numpy as np

    working = _prepare(files).working
    rows, columns = working.shape[1:]
    return np.pad(working, ((0, 0), (0, -rows % 16), (0, -columns % 16)))[:, None]


def _calls(manifest: Manifest, working: NDArray[np.float32], size: int) -> Callable[[], object]:
    """All slices of a study through the segmentation alone, some at a time."""
    from ai_services.models import runtime

    content = manifest.models["segmentation"].path.read_bytes()
    session = runtime.session_of(content, runtime.Execution("cpu", 1))
    return lambda: [
        session.run(None, {"image": working[start : start + size]}) for start in range(0, len(working), size)
    ]


def throughput_figures(sizes: Sizes, facts: Facts, tell: Tell) -> Iterator[Figure]:
    """Studies as DICOM files → predictions as files, on all processes; the first answers of each are not counted."""
    from ai_services.workflow.prediction_pool import Job, Pool, predict

    count, processes = sizes.studies, sizes.processes
    with tempfile.TemporaryDirectory(prefix="foramen-bench-") as name:
        folder = Path(name)
        jobs = []
        for number, study in enumerate(phantoms(min(count, 6))):
            files = []
            for index, dataset in enumerate(study.instances):
                files.append(folder / f"{number}-{index}.dcm")
                dataset.save_as(files[-1], enforce_file_format=True)
            jobs.append(Job(study.study_instance_uid, tuple(files)))
        offered = [jobs[index % len(jobs)] for index in range(count + processes)]
        answers, times = [], []
        for answer in predict(offered, folder / "out", Pool(processes)):
            if answer.status != "predicted":
                raise RuntimeError(f"a phantom was not analysed: {answer.reason}")
            answers.append(answer)
            times.append(time.perf_counter())
            if len(answers) % 6 == 0:
                tell(f"  {len(answers)} of {len(offered)} studies")
    images = sum(answer.images for answer in answers[processes:])
    facts["studies"] = (
        f"{count} on {processes} processes of one thread, DICOM files to predictions as files; "
        f"{processes} more before them are not counted"
    )
    rate = images / (times[-1] - times[processes - 1]) * 60
    yield Figure("batch", "images/min", rate, 600.0)
    yield Figure("most memory of a batch process", "MB", max(answer.peak_mb for answer in answers), 1500.0)


def devices() -> list[str]:
    """The CPU, and CUDA where ONNX Runtime offers it."""
    from ai_services.models.runtime import Execution, device_of

    best = device_of(Execution())
    return ["cpu"] if best == "cpu" else ["cpu", best]
