"""`foramen bench ai`: what the models cost on this machine, on SYNTHETIC phantoms, and how long Tasks wait for them.

Each part is a module of its own: `bench_ai_models` (models, throughput), `bench_ai_queue`, `bench_ai_variants` (also
parity with torch). Figures of one kind are taken by turns and told as medians; the first round is not counted.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from foramen.commands.bench_ai_figures import PARTS, Facts, Figure, Sizes, report
from foramen.commands.bench_ai_phantoms import phantoms
from foramen.commands.bench_page import HISTORY, Tell, progress

_LIBRARY_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


def run(parts: Sequence[str], sizes: Sizes, history: Path = HISTORY) -> dict[str, list[Figure]]:
    """Measure, print the table, add a line to the history, and write the page beside it.

    Parameters
    ----------
    parts : of `PARTS`
    """
    tell, figures, facts = progress(), dict[str, list[Figure]](), dict[str, Facts]()
    with _threads_as_in_a_worker():
        tell("drawing phantoms")
        phantoms(max(_phantoms_of(part, sizes) for part in parts))
        for part in (part for part in PARTS if part in parts):
            tell(part)
            facts[part] = {}
            figures[part] = list(_measure(part)(sizes, facts[part], tell))
        tell("done")
        about = {
            "command": f"foramen bench ai --parts {','.join(figures)} {sizes.command}",
            "model": _model(),
            "device": _device(),
        }
    report(figures, facts, about, history)
    return figures


def _measure(part: str) -> Callable[[Sizes, Facts, Tell], Iterable[Figure]]:
    from foramen.commands import bench_ai_models, bench_ai_queue, bench_ai_variants

    return {
        "models": bench_ai_models.model_figures,
        "throughput": bench_ai_models.throughput_figures,
        "queue": bench_ai_queue.queue_figures,
        "parity": bench_ai_variants.parity_figures,
        "variants": bench_ai_variants.variant_figures,
    }[part]


def _phantoms_of(part: str, sizes: Sizes) -> int:
    return {"models": 1, "throughput": min(sizes.studies, 6), "queue": sizes.queued + 1}.get(part, 3)


@contextmanager
def _threads_as_in_a_worker() -> Iterator[None]:
    """What a worker and a batch process set before NumPy is loaded: its products are small, threads would only wait."""
    before = {name: os.environ.get(name) for name in _LIBRARY_THREADS}
    os.environ.update(dict.fromkeys(_LIBRARY_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _model() -> str:
    from ai_services.models.registry import load_manifest

    manifest = load_manifest("lumbar_mr")
    return f"{manifest.name} {manifest.version}"


def _device() -> str:
    from foramen.commands.bench_ai_models import devices

    found = f"{_processor()}, {os.cpu_count()} cores"
    return found if devices() == ["cpu"] else f"{found}; {_graphics_card()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _graphics_card() -> str:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "CUDA"
