"""Whose records the files of an export hold: asked again at each download, for who is bounded by an institution.

A patient whom another institution manages by now closes the files to who exported them (ADR 0030). Each line of
``patients.ndjson`` is one list of keys of Patients that some resource of the export belongs to.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import orjson

from fhir_server.access.institutions import Wall, walled_types
from fhir_server.bulk.seen import version_of

_NAME = "patients.ndjson"
Change = Callable[[bytes], bytes | None]


class ExportedPatients:
    """Notes whose records are exported. What is noted is on disk before the lines count as written (`sync`)."""

    def __init__(self, folder: Path, wall: Wall, own_url: str) -> None:
        self._folder, self._wall, self._own_url = folder, wall, own_url
        self._known: set[tuple[int, ...]] = set()
        self._new: set[tuple[int, ...]] = set()

    def after(self, seen: Change | None, resource_type: str) -> Change | None:
        """Return the function that notes each line that `seen` lets pass."""
        if resource_type not in walled_types():
            return seen

        def change(line: bytes) -> bytes | None:
            kept = line if seen is None else seen(line)
            if kept is not None:
                keys = self._wall.keys_of(version_of(line, resource_type, self._own_url))
                if keys and keys not in self._known:
                    self._new.add(keys)
            return kept

        return change

    def sync(self) -> None:
        """Write what is new; a list may be written twice when a job goes on after a crash."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new, self._new = self._new, set()
        with (self._folder / _NAME).open("ab") as file:
            for keys in new:
                file.write(orjson.dumps(keys) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._known |= new


def patients_of(folder: Path) -> list[list[int]] | None:
    """Return whose records the files hold: of each list one Patient has to be visible. None: nobody noted it."""
    try:
        with (folder / _NAME).open("rb") as file:
            # The last line may have been cut off by a crash, before the lines it speaks of counted as written.
            return [orjson.loads(line) for line in file if line.endswith(b"\n")]
    except FileNotFoundError:
        return None
