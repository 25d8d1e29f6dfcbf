"""What a dry run found, a line a study, durable at once: a run that was killed goes on where it was (stage 4)."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from ai_services.workflow.prediction_pool import Answer

_FILE = "predictions.jsonl"


class Journal:
    """Answers of one output folder.

    Parameters
    ----------
    package : digest of the model package that speaks; answers of another one do not count as done
    """

    def __init__(self, folder: Path, package: str) -> None:
        self._path, self._package = folder / _FILE, package
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._cut_torn_line()

    def done(self) -> set[str]:
        """Study Instance UIDs that have their answer; what failed is tried again."""
        if not self._path.exists():
            return set()
        lines = [orjson.loads(line) for line in self._path.read_bytes().splitlines()]
        return {
            str(line["study_instance_uid"])
            for line in lines
            if line["package"] == self._package and line["status"] != "failed"
        }

    def add(self, answer: Answer) -> None:
        """Write a line; it is on disk when this returns."""
        line = orjson.dumps({**asdict(answer), "package": self._package}) + b"\n"
        with self._path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._path.chmod(0o600)

    def _cut_torn_line(self) -> None:
        """A kill in the middle of a line leaves half of it."""
        if not self._path.exists():
            return
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            self._path.write_bytes(whole)
