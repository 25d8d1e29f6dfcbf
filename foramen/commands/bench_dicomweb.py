"""`foramen bench dicomweb`: Foramen's DICOMweb beside the archive's own plug-in, in the same run and by turns.

Tokens, access rules and audit are on. Rows of retrieval are made by the functions in `ROWS`; each takes a `Bench` with
the stored study and yields `Row`s.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from foramen.commands.bench_dicomweb_index import growth, index_figures
from foramen.commands.bench_dicomweb_retrieve import retrieve_figures
from foramen.commands.bench_dicomweb_store import store_figures
from foramen.commands.bench_dicomweb_system import Bench, running
from foramen.commands.bench_dicomweb_table import Row, report
from foramen.commands.bench_page import HISTORY

ROWS: tuple[Callable[[Bench], Iterator[Row]], ...] = (index_figures, retrieve_figures, store_figures)


def run(
    instances: int,
    per_series: int,
    size: int,
    studies: list[int],
    per_study: int,
    questions: int,
    repeats: int,
    history: Path = HISTORY,
) -> list[Row]:
    """Measure, print the table and add a line to the history.

    Parameters
    ----------
    instances, per_series, size : of the stored SYNTHETIC CT study; `size` is the edge in pixels of 16 bit
    studies, per_study : sizes of the study index to search in, and instances of each study
    questions : searches of each kind
    repeats : of the other figures
    """
    sizes = ",".join(map(str, studies))
    command = (
        f"foramen bench dicomweb --instances {instances} --per-series {per_series} --size {size} --studies {sizes}"
    )
    command += f" --per-study {per_study} --questions {questions} --repeats {repeats}"
    with tempfile.TemporaryDirectory(prefix="foramen-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with running(folder, instances, per_series, size, repeats) as bench:
            rows = [row for figures in ROWS for row in figures(bench)]
            rows += growth(bench, studies, per_study, questions)
            if bench.settings.nginx_sendfile:
                command = f"FORAMEN_NGINX_SENDFILE=true {command}"
            facts = {
                "stored": f"{instances} SYNTHETIC CT instances of {size}x{size}x16 bit, {per_series} a series",
                "cache": "warm: the first round of each figure is not counted",
                "audit": "on; frames of one token, study and second share an event (ADR 0043)",
                "study index": "rows made directly, no files behind them; nothing is reconciled",
                **bench.notes,
            }
    report(rows, facts, command, history)
    return rows
