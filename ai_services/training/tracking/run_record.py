"""The record of a training run, beside its checkpoints: what it was told, on which data, by which code (stage 11).

A run that was killed and went on has several sessions; each says from which step, on how many processes and with which
code. Whatever becomes of a tracking server, this file and ``steps.jsonl`` are enough to say what a model came from.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

from ai_services.training.dataset_version import DatasetVersion
from ai_services.training.engine.recipe import Recipe

FILE = "run.json"
STEPS_FILE = "steps.jsonl"
_LOCK_FILE = "run.lock"
_LIBRARIES = ("torch", "monai", "numpy", "scipy")


class RunRecordError(Exception):
    """The folder holds no run, or its record cannot be read."""


@dataclass(frozen=True, slots=True)
class Session:
    """One start of a run: when, from which step, where, and with which code."""

    started: str
    from_step: int
    processes: int
    device: str
    code: str
    libraries: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run is.

    Parameters
    ----------
    recipe, recipe_digest : what it was told, with every default written out
    dataset : name, digest, licence, source, proof of de-identification, patients of each split
    sessions : its starts, in order
    """

    recipe: Mapping[str, Any]
    recipe_digest: str
    dataset: Mapping[str, Any]
    sessions: tuple[Session, ...]

    @property
    def name(self) -> str:
        """Of the recipe."""
        return str(self.recipe["name"])


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep other processes from training in the same folder; ends with the process, however it ends.

    Raises
    ------
    RunRecordError
        One does already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise RunRecordError("another process trains in this folder") from exc
        yield


def begin(folder: Path, recipe: Recipe, version: DatasetVersion, session: Session) -> RunRecord:
    """Write the record of a run, or add a session to the one that is there."""
    earlier = read(folder).sessions if (folder / FILE).exists() else ()
    dataset = {
        "name": version.name,
        "digest": version.digest,
        "licence": version.licence,
        "source": version.source,
        "deidentification": version.deidentification,
        "patients": {split: list(patients) for split, patients in version.splits.items()},
    }
    record = RunRecord(dataclasses.asdict(recipe), recipe.digest, dataset, (*earlier, session))
    folder.mkdir(parents=True, exist_ok=True)
    _end_last_line(folder / STEPS_FILE)
    staged = folder / f".{FILE}.part"
    with staged.open("w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(record), file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    staged.rename(folder / FILE)
    return record


def read(folder: Path) -> RunRecord:
    """Read the record of a run.

    Raises
    ------
    RunRecordError
        There is none, or it cannot be read.
    """
    try:
        document = json.loads((folder / FILE).read_bytes())
        document["sessions"] = tuple(Session(**session) for session in document["sessions"])
        return RunRecord(**document)
    except FileNotFoundError as exc:
        raise RunRecordError("the folder holds no training run") from exc
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise RunRecordError(f"{FILE} cannot be read") from exc


def read_steps(folder: Path) -> list[dict[str, float]]:
    """Figures of each step in order; of a step that was computed again after a kill, the last."""
    found: dict[int, dict[str, float]] = {}
    path = folder / STEPS_FILE
    if not path.exists():
        return []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            figures = json.loads(line)
            found[int(figures["step"])] = figures
        except (ValueError, KeyError, TypeError):
            continue  # what a kill left half written
    return [found[step] for step in sorted(found)]


def _end_last_line(path: Path) -> None:
    """What a kill left half written stays a line of its own, and takes none with it that comes after."""
    if path.exists():
        with path.open("rb+") as file:
            if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
                file.write(b"\n")


def session_now(started: str, from_step: int, processes: int, device: str) -> Session:
    """A session of this process's code and libraries."""
    return Session(started, from_step, processes, device, code_hash(), libraries())


@cache
def code_hash() -> str:
    """SHA-256 over the source of `ai_services`, names and content: says which code ran where there is no repository."""
    root = Path(str(files("ai_services")))
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def libraries() -> dict[str, str]:
    """Versions of what computes."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _LIBRARIES}
