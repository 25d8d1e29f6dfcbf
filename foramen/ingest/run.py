"""Send everything at some paths to an archive: skip what it acknowledged before, report every file that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from foramen.ingest.journal import Journal
from foramen.ingest.send import send_instances
from foramen.ingest.sources import Item, Plan, read
from foramen.kernel.log import get_log

_BATCH_BYTES = 64 * 1024 * 1024
_BATCH_ITEMS = 200


@dataclass(frozen=True, slots=True)
class Destination:
    """An archive as DIMSE addresses it."""

    host: str
    port: int
    aet: str

    def __str__(self) -> str:
        return f"{self.aet}@{self.host}:{self.port}"


@dataclass(slots=True)
class Report:
    """What became of the files.

    `mended`: what was wrong with a file, or changed on the way. `unreachable`: of what failed, something did so for
    reasons of the archive or the way to it, so that it will not fail by itself again.
    """

    stored: int = 0
    skipped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    mended: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    unreachable: bool = False


def ingest_paths(
    plan: Plan,
    destination: Destination,
    home: Path,
    sidecar: Path | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Report:
    """Send the instances of a plan; `advance` is called once per file or instance."""
    report = Report()
    with Journal(home, str(destination)) as journal:
        for batch in _batches(read(plan, sidecar)):
            _send(batch, destination, journal, report, advance)
    return report


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item.content)
        if size > _BATCH_BYTES or len(batch) >= _BATCH_ITEMS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _send(
    batch: list[Item], destination: Destination, journal: Journal, report: Report, advance: Callable[[], None]
) -> None:
    to_send: list[tuple[Item, str]] = []
    for item in batch:
        if item.mended:
            report.mended.append((item.name, item.mended))
            get_log().info("mended on the way in", what="; ".join(item.mended))
        if item.dataset is None:
            report.failed.append((item.name, item.fault))
            advance()
        elif journal.has(key := journal.key(item.content)):
            report.skipped += 1
            advance()
        else:
            to_send.append((item, key))
    datasets = [item.dataset for item, _ in to_send if item.dataset is not None]
    waiting = iter(to_send)

    def note(outcome: object) -> None:
        # Outcomes come in the order of the datasets; each is journalled as soon as it is acknowledged.
        item, key = next(waiting)
        reason = getattr(outcome, "reason", "")
        if reason:
            report.failed.append((item.name, reason))
            report.unreachable = report.unreachable or bool(getattr(outcome, "again", False))
        else:
            journal.add(key)
            report.stored += 1
        advance()

    if datasets:
        send_instances(datasets, destination.host, destination.port, destination.aet, on_outcome=note)
