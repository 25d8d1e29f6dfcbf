"""Judged reports → labelled rows under a project's pseudonyms: an allow-list, so nothing of a person is in them. Pure.

Names, notes, reasons, conclusions, displays, narrative and times of day are never copied. Ids and UIDs are those of the
record's pseudonymised export and of `foramen deidentify`, so labels, records and images fit (ADR 0038, ADR 0053).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

from ai_services.monitoring.judged import JudgedFinding, JudgedReport
from ai_services.monitoring.observed import Value
from foramen.kernel.crypto.pseudonyms import ProjectPseudonyms

LABELLED = frozenset({"agreed", "corrected", "rejected"})


@dataclass(frozen=True, slots=True)
class ModelName:
    """Which model spoke: name and version as its Device says, SHA-256 of its weights."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One finding of one disc, or of the study.

    Parameters
    ----------
    patient, annotator : pseudonyms of the project
    study, series : UIDs under the project
    finding, level, segment : as in the record; `segment` is the number in the DICOM SEG of the series
    before, after : the model's value and the person's; `after` is None where the report was rejected
    verdict : ``agreed`` (signed without a change), ``corrected`` or ``rejected``
    decision : ``verify``, ``amend`` or ``reject``: what was done with the whole report
    decided : day, moved as all dates of the patient
    confidence, expected, numbering_confident : the model's
    """

    patient: str
    study: str
    series: str | None
    finding: str
    level: str | None
    segment: int | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    verdict: str
    decision: str
    decided: str
    annotator: str
    model: dict[str, str] | None
    confidence: float | None
    expected: float | None
    numbering_confident: bool | None
    synthetic: bool

    def as_json(self) -> dict[str, Any]:
        """For one line of NDJSON."""
        return asdict(self)


def rows_of(
    report: JudgedReport, study_instance_uid: str, models: Mapping[str, ModelName], pseudonyms: ProjectPseudonyms
) -> list[LabelRow]:
    """Rows of one report, in the order of its findings; findings that nobody settled give none.

    Parameters
    ----------
    report : with its decision
    study_instance_uid : of its images, as the archive knows it
    models : by reference of the Device
    pseudonyms : of the project
    """
    return [
        _row(report, finding, study_instance_uid, models, pseudonyms)
        for finding in report.findings
        if finding.verdict in LABELLED and finding.decision is not None and finding.said is not None
    ]


def shifted_day(instant: str, days: int) -> str:
    """The day of a FHIR instant, moved; the time of day is dropped."""
    return (date.fromisoformat(instant[:10]) + timedelta(days=days)).isoformat()


def _row(
    report: JudgedReport,
    finding: JudgedFinding,
    study_instance_uid: str,
    models: Mapping[str, ModelName],
    pseudonyms: ProjectPseudonyms,
) -> LabelRow:
    patient = report.patient.partition("/")[2]
    decision = finding.decision
    if decision is None:
        raise ValueError("a label needs a decision")
    model = models.get(finding.device or "")
    return LabelRow(
        patient=pseudonyms.pseudonym("Patient", patient),
        study=pseudonyms.uid(study_instance_uid),
        series=pseudonyms.uid(report.source_series_uid) if report.source_series_uid else None,
        finding=finding.code,
        level=finding.level,
        segment=finding.segment_number,
        before=_value(finding.said),
        after=_value(finding.after),
        verdict=finding.verdict,
        decision=decision.kind if decision.kind in ("verify", "amend", "reject") else "unsaid",
        decided=shifted_day(decision.recorded, pseudonyms.shift_days(patient)),
        annotator=pseudonyms.pseudonym(*decision.who.split("/", 1)),
        model=asdict(model) if model else None,
        confidence=finding.confidence,
        expected=finding.expected,
        numbering_confident=finding.numbering_confident,
        synthetic=report.synthetic,
    )


def _value(value: Value | None) -> dict[str, Any] | None:
    return None if value is None else {key: item for key, item in asdict(value).items() if item is not None}
