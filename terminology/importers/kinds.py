"""The kinds of releases that can be imported, by the word used on the command line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from terminology.importers.icd10 import icd10_release
from terminology.importers.loinc import LoincRelease
from terminology.importers.release import BadReleaseError, Problems
from terminology.importers.snomed_rf2 import SnomedRelease
from terminology.importers.tables import CHINESE_EDITIONS, chinese_edition, generic_table

KINDS: dict[str, Callable[..., Any]] = {
    "snomed": SnomedRelease,
    "loinc": LoincRelease,
    "icd10": icd10_release,
    **{kind: partial(chinese_edition, kind) for kind in CHINESE_EDITIONS},
    "csv": generic_table,
}


def open_release(kind: str, path: Path, problems: Problems, version: str | None, url: str | None) -> Any:
    """Open a release.

    Raises
    ------
    BadReleaseError
        No such kind, or the files are not one.
    """
    if kind not in KINDS:
        raise BadReleaseError(f"The kinds are {', '.join(KINDS)}")
    return KINDS[kind](path, problems, version, url)
