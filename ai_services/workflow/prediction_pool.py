"""Predictions of many studies on several processes, without the record: dry runs and benchmarks (stage 4).

One process a core with one thread each answers more studies a minute than one process with many threads, as a study's
work is not all inside the models. A process that dies takes no study with it but its own.
"""

from __future__ import annotations

import ctypes
import hashlib
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ai_services.models.registry import Manifest
from ai_services.models.runtime import Execution, configure, device_of
from ai_services.prediction import PipelineError
from ai_services.workflow.pipelines import MR, kind_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PR_SET_PDEATHSIG = 1
_THREADS_OF_LIBRARIES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Job:
    """One study: its UID, and the DICOM files that belong to it."""

    study_instance_uid: str
    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        """Name of what is written about it: no UID in a file's name."""
        return hashlib.sha256(self.study_instance_uid.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one study.

    Parameters
    ----------
    status : ``predicted``; ``declined`` as the pipeline says why; ``failed`` where it could not look
    reason, text_en, text_zh : of what is not predicted
    images : slices that were analysed
    seconds : reading, analysing and writing
    peak_mb : most memory that the process held until then, MB
    """

    study_instance_uid: str
    status: str
    name: str
    reason: str = ""
    text_en: str = ""
    text_zh: str = ""
    series_instance_uid: str = ""
    models: tuple[dict[str, str], ...] = ()
    findings: int = 0
    images: int = 0
    seconds: float = 0.0
    peak_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class Pool:
    """How many processes, and how the models run in each.

    Parameters
    ----------
    manifest : the version that speaks; None for the one that the MR pipeline comes with
    ahead : studies handed out beyond one a process: what lies ready bounds memory and spool
    """

    processes: int = field(default_factory=lambda: os.cpu_count() or 1)
    execution: Execution = field(default_factory=lambda: Execution(threads=1))
    manifest: Manifest | None = None
    ahead: int = 1


def predict(jobs: Iterable[Job | Answer], out: Path, pool: Pool) -> Iterator[Answer]:
    """Answer studies as they finish; what is predicted lies at ``out/<name>.npz``.

    `jobs` is drawn from only as studies finish; an Answer in it is passed on. A study whose process dies (out of
    memory) is tried once more, alone, and then failed; the others go on.
    """
    device_of(pool.execution)  # refuses here and not in every process
    waiting, suspects = iter(jobs), list[Job]()
    while True:
        suspects += yield from _until_broken(waiting, out, pool)
        if not suspects:
            return
        for job in suspects:
            broken = yield from _until_broken(iter([job]), out, _alone(pool))
            for lost in broken:
                yield Answer(lost.study_instance_uid, "failed", lost.name, "worker-died", _DIED_EN, _DIED_ZH)
        suspects = []


_DIED_EN = "the process that analysed the study died, twice; it may need more memory"
_DIED_ZH = "分析该检查的进程两次异常退出, 可能内存不足"


def _alone(pool: Pool) -> Pool:
    return Pool(1, pool.execution, pool.manifest, 0)


def _until_broken(jobs: Iterator[Job | Answer], out: Path, pool: Pool) -> Generator[Answer, None, list[Job]]:
    """Yield answers until the jobs end or a process dies; returns the jobs that were under way then."""
    under_way: dict[Future[Answer], Job] = {}
    context = multiprocessing.get_context("spawn")
    with _few_threads(), ProcessPoolExecutor(pool.processes, context, _begin, (pool,)) as executor:
        try:
            while True:
                while len(under_way) < pool.processes + pool.ahead and (job := next(jobs, None)) is not None:
                    if isinstance(job, Answer):
                        yield job
                    else:
                        under_way[executor.submit(_answer, job, out)] = job
                if not under_way:
                    return []
                done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    answer = future.result()
                    del under_way[future]
                    yield answer
        except BrokenProcessPool:
            return list(under_way.values())
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


class _few_threads:
    """Children read these when they load NumPy; OpenBLAS would take every core in every process."""

    def __enter__(self) -> None:
        self._before = {name: os.environ.get(name) for name in _THREADS_OF_LIBRARIES}
        os.environ.update(dict.fromkeys(_THREADS_OF_LIBRARIES, "1"))

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Mine:
    manifest: Manifest | None = None


def _begin(pool: Pool) -> None:
    """In each process, once: device, threads, the models loaded and run once."""
    from ai_services.workflow.warm_up import warm_up

    with suppress(OSError):
        os.nice(10)  # live work goes first on this machine
    _die_with_parent()
    configure(pool.execution)
    _Mine.manifest = pool.manifest
    warm_up(pool.manifest)


def _die_with_parent() -> None:
    """Ask Linux to end this process when the command is killed: nobody would read its answers (prctl(2))."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _answer(job: Job, out: Path) -> Answer:
    began = time.perf_counter()
    try:
        answer = _predict(job, out)
    except PipelineError as declined:
        status = "failed" if declined.retryable else "declined"
        answer = Answer(
            job.study_instance_uid, status, job.name, declined.reason_code, declined.text_en, declined.text_zh
        )
    except (MemoryError, OSError, ValueError, TypeError, KeyError, AttributeError, IndexError) as fault:
        text = f"could not look: {type(fault).__name__}"
        answer = Answer(job.study_instance_uid, "failed", job.name, "unexpected", text, "未能完成分析")
    return replace(answer, seconds=round(time.perf_counter() - began, 3), peak_mb=round(_peak_mb(), 1))


def _peak_mb() -> float:
    """Most memory of this process: VmHWM of proc(5), as ru_maxrss of getrusage(2) begins with the parent's."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _predict(job: Job, out: Path) -> Answer:
    from ai_services.workflow.spool import write_prediction

    kind = kind_of(_Mine.manifest.name if _Mine.manifest else MR)

    by_series: dict[str, list[Dataset]] = {}
    for dataset in _read(job.files):
        by_series.setdefault(str(dataset.get("SeriesInstanceUID", "")), []).append(dataset)
    chosen = kind.select([found for found in by_series.values() if found[0].get("Modality") == kind.modality]).require()
    prediction = kind.run(by_series[chosen], _Mine.manifest)
    write_prediction(out / f"{job.name}.npz", prediction)
    return Answer(
        job.study_instance_uid,
        "predicted",
        job.name,
        series_instance_uid=chosen,
        models=tuple({"name": m.name, "version": m.version, "sha256": m.sha256} for m in prediction.models),
        findings=len(prediction.findings),
        images=len(prediction.mask),
    )


def _read(files: Iterable[Path]) -> Iterator[Dataset]:
    import pydicom
    from pydicom.errors import InvalidDicomError

    for path in files:
        try:
            yield pydicom.dcmread(path)
        except (InvalidDicomError, OSError) as exc:
            raise PipelineError(
                "invalid-pixel-data", "a file of the study cannot be read", "该检查有文件无法读取"
            ) from exc
