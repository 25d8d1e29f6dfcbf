"""Figures of `foramen bench ai`, the line they leave in the history, and the page that is written from its lines.

Parts are measured together or alone, so the page shows each part as the newest line that holds it has it, and which run
that was.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foramen.commands.bench_page import page, remember, show, write_page

PARTS = ("models", "throughput", "queue", "parity", "variants")
FEWEST_FOR_P99 = 100
_MORE_IS_BETTER = ("images/min", "Dice", "share", "times")
_COLUMNS = ("part", "what", "value", "goal", "reached", "run")


Facts = dict[str, str]
"""What a reader must know of a part's figures."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Parameters
    ----------
    repeats : rounds of what is taken by turns
    studies : of the throughput
    queued : studies sent to the queue; 100 or more for a 99th percentile
    processes : of the throughput; one thread each
    rate : images a minute that are sent to the queue
    """

    repeats: int = 7
    studies: int = 24
    queued: int = 24
    processes: int = 2
    rate: int = 120

    @property
    def command(self) -> str:
        """The options that say so."""
        return (
            f"--repeats {self.repeats} --studies {self.studies} --queued {self.queued} --processes {self.processes} "
            f"--rate {self.rate}"
        )


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Parameters
    ----------
    unit : images/min, Dice, share and times: more is better; all others: less is
    value : told; `values` are what it was made of
    goal : at most or at least, as the unit has it; None where nothing was promised
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


def highest_percentile(values: Sequence[float]) -> tuple[str, float]:
    """99th percentile and its name; of fewer than 100 values the highest, which is no lower, and is called so."""
    if len(values) < FEWEST_FOR_P99:
        return f"highest of {len(values)}", max(values)
    return f"P99 of {len(values)}", statistics.quantiles(values, n=100)[98]


def report(
    figures: Mapping[str, Sequence[Figure]], facts: Mapping[str, Facts], run: Mapping[str, str], history: Path
) -> None:
    """Print what was measured, add a line to the history, and write the page from all its lines.

    Parameters
    ----------
    figures, facts : of each part that was measured; facts are what a reader must know of them
    run : of the whole run: command, model, device
    """
    rows = [_row(part, *_told(figure), "") for part, found in figures.items() for figure in found]
    notes = [f"{part}, {name}: {fact}" for part, told in facts.items() for name, fact in told.items()]
    show("foramen bench ai", _COLUMNS[:-1], [row[:-1] for row in rows], [*notes, *run.values()])
    entry = {
        **run,
        "parts": {
            part: {
                "facts": dict(facts.get(part, {})),
                "figures": {
                    item.name: {"unit": item.unit, "value": round(item.value, 6), "goal": item.goal} for item in found
                },
            }
            for part, found in figures.items()
        },
    }
    remember("ai", entry, history)
    write_page("ai", page_of(history), history)


def page_of(history: Path) -> str:
    """The page: of each part the newest figures in the history."""
    newest: dict[str, dict[str, Any]] = {}
    for line in history.read_text("utf-8").splitlines():
        entry = json.loads(line)
        if entry["bench"] == "ai":
            newest.update(dict.fromkeys(entry.get("parts", {}), entry))
    runs: list[dict[str, Any]] = []
    rows, notes = [], []
    for part in (part for part in PARTS if part in newest):
        entry = newest[part]
        if entry not in runs:
            runs.append(entry)
        number = str(runs.index(entry) + 1)
        for name, item in entry["parts"][part]["figures"].items():
            rows.append(_row(part, *_told(Figure(name, item["unit"], item["value"], item["goal"])), number))
        notes += [f"{part}, {name}: {fact}" for name, fact in entry["parts"][part]["facts"].items()]
    told = [
        f"run {number}: `{entry['command']}`, {entry['at'][:10]}, {entry['model']}, {entry['device']}, "
        f"Python {entry['python']}"
        for number, entry in enumerate(runs, start=1)
    ]
    preface = [
        "Written by `foramen bench ai`: of each part the newest figures, and below the table the run that they are of.",
        "Medians of rounds taken by turns; the first round is not counted. Studies are SYNTHETIC phantoms of 15",
        "slices, 448x384 pixels of 0.7 mm, 4 mm apart, where nothing else is said.",
    ]
    return page("Models: speed, queue, memory, parity, variants", preface, _COLUMNS, rows, [*told, *notes])


def _told(figure: Figure) -> tuple[str, str, str, str]:
    more = figure.unit in _MORE_IS_BETTER
    goal = "" if figure.goal is None else f"{'≥' if more else '≤'} {figure.goal:g}"
    reached = {None: "", True: "yes", False: "no"}[figure.reached]
    return figure.name, f"{figure.value:.4g} {figure.unit}".strip(), goal, reached


def _row(part: str, name: str, value: str, goal: str, reached: str, run: str) -> tuple[str, ...]:
    return part, name, value, goal, reached, run
