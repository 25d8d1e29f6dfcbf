"""`foramen bench ai`: what the models cost on this machine, on SYNTHETIC phantoms, and how long Tasks wait for them.

Figures of one kind are taken by turns and told as medians; the first round of each is not counted. Rows are `Figure`s;
the queue is measured by `bench_ai_queue`, variants and parity with torch by `bench_ai_variants`.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from ai_services.imaging.volume import Volume
    from ai_services.models.registry import Manifest
    from ai_services.pipelines.lumbar_mr.infer import Networks
    from ai_services.pipelines.lumbar_mr.preprocess import Prepared
    from foramen.demo.studies import DemoStudy

PARTS = ("models", "throughput", "queue", "variants")
HISTORY = Path("docs/benchmarks/history.jsonl")
_ISSUER = "DEMO"
_BATCHES = (1, 5, 15)
_MORE_IS_BETTER = ("images/min",)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Parameters
    ----------
    value : told; `values` are what it was made of
    goal : at most, or for images/min at least; None where nothing was promised
    """

    name: str
    unit: str
    value: float
    goal: float | None = None
    values: tuple[float, ...] = field(default=(), repr=False)

    @property
    def reached(self) -> bool | None:
        """Whether the goal was reached; None where there is none."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.unit in _MORE_IS_BETTER else self.value <= self.goal


def run(
    parts: Sequence[str], repeats: int, studies: int, processes: int, rate: int, history: Path = HISTORY
) -> list[Figure]:
    """Measure, print the table, and add a line to the history.

    Parameters
    ----------
    parts : of `PARTS`
    repeats : rounds of what is taken by turns
    studies : of the throughput, and sent to the queue
    processes : of the throughput; one thread each
    rate : images a minute that are sent to the queue
    """
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "data": "SYNTHETIC phantoms of 15 slices, 448x384 pixels of 0.7 mm, 4 mm apart",
    }
    figures: list[Figure] = []
    if "models" in parts:
        figures += _by_turns(repeats, facts)
    if "throughput" in parts:
        figures += _throughput(studies, processes, facts)
    if "queue" in parts:
        from foramen.commands.bench_ai_queue import queue_figures

        figures += queue_figures(studies, rate, facts)
    if "variants" in parts:
        from foramen.commands.bench_ai_variants import variant_figures

        figures += variant_figures(repeats, facts)
    _tell(figures, facts, history)
    return figures


def phantoms(count: int) -> list[DemoStudy]:
    """SYNTHETIC studies of different patients."""
    from foramen.demo.studies import phantom_study

    return [phantom_study(_ISSUER, seed) for seed in range(1, count + 1)]


def _by_turns(repeats: int, facts: dict[str, Any]) -> list[Figure]:
    """Preprocessing, recognition and slices a call, in rounds, on each device that there is."""
    from ai_services.models import runtime
    from ai_services.models.registry import load_manifest
    from ai_services.pipelines.lumbar_mr.infer import Networks

    files = [_as_file(dataset) for dataset in phantoms(1)[0].instances]
    measured: dict[str, Callable[[], object]] = {
        "preprocessing of an image": lambda: _prepare(files[7:8]),
        "preprocessing of a study": lambda: _prepare(files),
    }
    goals: dict[str, float] = {
        "preprocessing of an image": 0.3,
        "preprocessing of a study": 2.0,
        "recognition of a study, cpu": 3.0,
    }
    manifest = load_manifest("lumbar_mr")
    for device in _devices():
        runtime.configure(runtime.Execution(device))
        measured[f"recognition of a study, {device}"] = partial(_recognise, files, Networks(manifest))
    working = _working(files)
    for size in _BATCHES:
        measured[f"segmentation of 15 slices, {size} a call, 1 thread"] = _calls(manifest, working, size)
    facts["device"] = f"{', '.join(_devices())}; recognition on {runtime.THREADS} CPU threads"
    return [
        Figure(name, "s", statistics.median(values), goals.get(name), tuple(values))
        for name, values in _rounds(measured, repeats).items()
    ]


def _rounds(measured: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for number in range(repeats + 1):
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


def _recognise(files: Sequence[bytes], networks: Networks) -> object:
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


def _throughput(count: int, processes: int, facts: dict[str, Any]) -> Iterator[Figure]:
    """Studies as DICOM files → predictions as files, on all processes; the first answers of each are not counted."""
    from ai_services.workflow.prediction_pool import Job, Pool, predict

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
    images = sum(answer.images for answer in answers[processes:])
    facts["throughput"] = f"{count} studies on {processes} processes of 1 thread, DICOM files to predictions as files"
    rate = images / (times[-1] - times[processes - 1]) * 60
    yield Figure("batch throughput", "images/min", rate, 600.0)
    yield Figure("most memory of a batch process", "MB", max(answer.peak_mb for answer in answers), 1500.0)


def _devices() -> list[str]:
    from ai_services.models.runtime import Execution, device_of

    best = device_of(Execution())
    return ["cpu"] if best == "cpu" else ["cpu", best]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _tell(figures: Sequence[Figure], facts: dict[str, Any], history: Path) -> None:
    table = Table("what", "unit", "value", "goal", "reached", title="foramen bench ai")
    for figure in figures:
        goal = "" if figure.goal is None else f"{'≥' if figure.unit in _MORE_IS_BETTER else '≤'} {figure.goal:g}"
        reached = {None: "", True: "yes", False: "NO"}[figure.reached]
        table.add_row(figure.name, figure.unit, f"{figure.value:.4g}", goal, reached)
    console = Console(width=120)
    console.print(table)
    for name, fact in facts.items():
        console.print(f"{name}: {fact}")
    entry = {
        "bench": "ai",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "facts": facts,
        "figures": {figure.name: {"unit": figure.unit, "value": round(figure.value, 6)} for figure in figures},
    }
    history.parent.mkdir(parents=True, exist_ok=True)
    with history.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")
