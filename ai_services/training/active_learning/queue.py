"""Builds the queue from the record and writes it back as Tasks (stage 11; ADR 0053).

Candidates are results that nobody has decided on, of patients who take part in research; what is labelled already tells
which kinds are still missing. Computing it again changes only what changed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np

from ai_services.monitoring.judged import JudgedReport
from ai_services.monitoring.record import RecordReader
from ai_services.monitoring.scanner import ScannerLookup
from ai_services.monitoring.strata import strata_of
from ai_services.training.active_learning.order import Candidate, order
from ai_services.training.active_learning.reasons import reasons
from ai_services.training.active_learning.tasks import OPEN, Changes, Wanted, changes
from ai_services.training.active_learning.uncertainty import Unsure, of_study
from ai_services.training.labels.consent import ConsentRule, may_use
from ai_services.training.labels.draw import DECIDED, consents_of, study_uid
from foramen.kernel.fhir_client import FhirClient
from terminology.codes import ANNOTATE

SCOPES = "system/Task.crus"
"""What a queue needs beyond what a draw of labels reads."""
_UNDECIDED = ("partial",)


@dataclass(slots=True)
class Queue:
    """The new queue, what it was made from, and why results are not among the candidates."""

    wanted: list[Wanted] = field(default_factory=list)
    candidates: int = 0
    labelled: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    decided: dict[str, str] = field(default_factory=dict)
    still_open: frozenset[str] = frozenset()


async def build(
    fhir: FhirClient,
    scanners: ScannerLookup | None,
    *,
    rule: ConsentRule,
    on: date,
    limit: int,
    seed: int,
    diversity: float = 0.5,
) -> Queue:
    """Order what nobody has annotated.

    Parameters
    ----------
    fhir : the record, with the caller's token
    scanners : the archive; None leaves the scanner unknown
    rule, on : whose studies are annotated, and the day that Consents have to be in force
    limit, seed, diversity : see `order`

    Raises
    ------
    InteropError
        Record or archive refuse or do not answer.
    """
    reader, queue = RecordReader(fhir), Queue()
    open_ = await _taking_part(reader, [item async for item in reader.all(_UNDECIDED)], rule, on, queue)
    done = [item async for item in reader.all(DECIDED) if item.decision is not None]
    queue.decided = {item.reference: item.decision.recorded for item in done if item.decision is not None}
    queue.still_open = frozenset(report.reference for report in open_)
    told = {report.reference: of_study(report.findings) for report in (*open_, *done)}
    pool = [report for report in open_ if told[report.reference][0] is not None]
    queue.left_out["without-probabilities"] += len(open_) - len(pool)
    queue.left_out += reader.left_out
    candidates = await _candidates(reader, scanners, [*pool, *done], told)
    by_key = {report.reference: report for report in pool}
    places = order(
        [item for item in candidates if item.key in by_key],
        [item for item in candidates if item.key not in by_key],
        limit=limit,
        seed=seed,
        diversity=diversity,
    )
    queue.candidates, queue.labelled = len(pool), len(done)
    for place in places:
        report = by_key[place.candidate.key]
        zh, en = reasons(place, told[report.reference][1], numbering_confident=_numbering(report))
        queue.wanted.append(
            Wanted(
                report.reference,
                report.patient,
                place.rank,
                place.candidate.uncertainty,
                place.distance,
                zh,
                en,
                report.synthetic,
            )
        )
    return queue


async def publish(fhir: FhirClient, queue: Queue, *, seed: int, now: str) -> Changes:
    """Write the queue as Tasks in one transaction; harmless to repeat.

    Raises
    ------
    PreconditionError
        Somebody changed a Task meanwhile: nothing was written; build the queue again.
    """
    reader = RecordReader(fhir)
    code = f"{ANNOTATE.system}|{ANNOTATE.code}"
    open_tasks = [
        task async for page in reader.pages("Task", [("code", code), ("status", ",".join(OPEN))]) for task in page
    ]
    found = changes(queue.wanted, open_tasks, queue.decided, queue.still_open, seed=seed, now=now)
    if found.entries:
        await fhir.transaction({"resourceType": "Bundle", "type": "transaction", "entry": list(found.entries)})
    return found


async def _taking_part(
    reader: RecordReader, reports: Sequence[JudgedReport], rule: ConsentRule, on: date, queue: Queue
) -> list[JudgedReport]:
    consents = await consents_of(reader, {report.patient for report in reports})
    found = [report for report in reports if may_use(consents[report.patient], on, rule)]
    queue.left_out["no-research-consent"] += len(reports) - len(found)
    return found


async def _candidates(
    reader: RecordReader,
    scanners: ScannerLookup | None,
    reports: Sequence[JudgedReport],
    told: dict[str, tuple[float | None, tuple[Unsure, ...]]],
) -> list[Candidate]:
    patients = await reader.resources("Patient", (report.patient for report in reports))
    studies = await reader.resources("ImagingStudy", (report.imaging_study or "" for report in reports))
    found = []
    for report in reports:
        uid, series = study_uid(studies.get(report.imaging_study or "")), report.source_series_uid
        scanner = await scanners.of(uid, series) if scanners and uid and series else None
        groups = strata_of(patients.get(report.patient, {}), scanner, report.effective)
        groups["grade"] = _highest_grade(report)
        found.append(Candidate(report.reference, told[report.reference][0] or 0.0, _features(report), groups))
    return found


def _features(report: JudgedReport) -> tuple[float, ...]:
    """What the spine looks like to the model: mean and largest grade expected, height index, canal, herniations."""
    values: dict[str, list[float]] = defaultdict(list)
    for finding in report.findings:
        if finding.code == "F06" and finding.expected is not None:
            values["grade"].append(finding.expected)
        elif finding.said is not None and finding.said.number is not None:
            values[finding.code].append(finding.said.number)
        elif finding.code == "F01" and finding.said is not None and finding.said.kind == "code":
            values["F01"].append(float(finding.said.code not in ("normal", "bulge")))
    return (
        *(float(reduce(values["grade"])) if values["grade"] else np.nan for reduce in (np.mean, np.max)),
        *(float(np.min(values[name])) if values[name] else np.nan for name in ("F13", "canal-ap")),
        float(np.mean(values["F01"])) if values["F01"] else np.nan,
    )


def _highest_grade(report: JudgedReport) -> str:
    said = [item.said for item in report.findings if item.code == "F06" and item.said is not None]
    return max((value.code for value in said if value.kind == "code"), default="unknown")


def _numbering(report: JudgedReport) -> bool | None:
    return next((item.numbering_confident for item in report.findings if item.code == "numbering"), None)
