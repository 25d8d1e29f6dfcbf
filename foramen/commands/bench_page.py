"""What a benchmark leaves: its table on the screen, a page in docs/benchmarks, a line in history.jsonl beside it."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HISTORY = Path("docs/benchmarks/history.jsonl")
Row = Sequence[str]
Tell = Callable[[str], None]
"""Says what a benchmark is doing."""


def progress() -> Tell:
    """Lines on standard error, each with the seconds since this call; the table keeps standard output to itself."""
    began, console = time.monotonic(), Console(stderr=True, width=140)

    def tell(doing: str) -> None:
        console.print(f"{time.monotonic() - began:4.0f} s  {doing}", highlight=False, markup=False)

    return tell


def show(title: str, columns: Sequence[str], rows: Sequence[Row], notes: Sequence[str] = ()) -> None:
    """Print a table and notes below it."""
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    console = Console(width=140)
    console.print(table)
    for note in notes:
        console.print(note)


def remember(bench: str, entry: Mapping[str, Any], history: Path) -> None:
    """Add a line to the history: which benchmark, when, on how many cores, and what was found."""
    line = {
        "bench": bench,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **entry,
    }
    history.parent.mkdir(parents=True, exist_ok=True)
    with history.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def page(
    title: str, preface: Sequence[str], columns: Sequence[str], rows: Sequence[Row], notes: Sequence[str] = ()
) -> str:
    """Return the table as Markdown, with notes as a list below it."""
    table = (columns, ("---",) * len(columns), *rows)
    lines = [f"# {title}", "", *preface, "", *(f"| {' | '.join(row)} |" for row in table), ""]
    return "\n".join([*lines, *(f"- {note}" for note in notes), *([""] if notes else [])])


def write_page(name: str, text: str, history: Path) -> None:
    """Write ``<name>.md`` beside the history."""
    history.with_name(f"{name}.md").write_text(text, encoding="utf-8")
