"""Rows of labels → what was decided about each disc of each series. Pure (stage 11; ADR 0053)."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_services.pipelines.lumbar_mr.pipeline import FIRST_DISC_SEGMENT

MORPHOLOGY, PFIRRMANN = "F01", "F06"


@dataclass(slots=True)
class Known:
    """What was decided about one disc; None where nothing was."""

    level: str
    pfirrmann: int | None = None
    form: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """One series under its pseudonyms; the path of its images in the folder of `foramen deidentify`."""

    patient: str
    study: str
    series: str

    @property
    def path(self) -> Path:
        """Where the images lie."""
        return Path(self.patient) / self.study / self.series


def decided_discs(rows: Iterable[Mapping[str, Any]], left_out: Counter[str]) -> dict[Place, dict[int, Known]]:
    """What was decided, by series and by number of the disc from the lowest; of two decisions the later counts. Pure.

    Parameters
    ----------
    rows : lines of labels
    left_out : counts those that say nothing to train on
    """
    found: dict[Place, dict[int, Known]] = defaultdict(dict)
    for row in sorted(rows, key=lambda item: (item["decided"], json.dumps(item, sort_keys=True))):
        if row["finding"] not in (MORPHOLOGY, PFIRRMANN):
            continue
        code = (row["after"] or {}).get("code")
        if row["verdict"] == "rejected" or code is None:
            left_out["no-value-to-train-on"] += 1
            continue
        if row["series"] is None or row["segment"] is None or row["level"] is None:
            left_out["no-place-in-the-images"] += 1
            continue
        number = int(row["segment"]) - FIRST_DISC_SEGMENT + 1
        place = Place(row["patient"], row["study"], row["series"])
        known = found[place].setdefault(number, Known(row["level"]))
        if row["finding"] == PFIRRMANN:
            known.pfirrmann = int(code)
        else:
            known.form = str(code)
    return dict(found)
