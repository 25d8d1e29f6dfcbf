"""A page on which a person can read their own record: zh-CN and en-US side by side, no script, nothing from elsewhere.

It is a reading aid; the NDJSON files are the data. Pure but for the template.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2

_FOLDER = Path(__file__).with_name("templates")
_EPOCH_MICROS = 1_000_000
_DATES = (
    *("effectiveDateTime", "effectiveInstant", "performedDateTime", "onsetDateTime", "occurrenceDateTime", "started"),
    *(
        "authoredOn",
        "dateTime",
        "date",
        "issued",
        "recordedDate",
        "recorded",
        "created",
        "start",
        "sent",
        "dateAsserted",
    ),
)
_PERIODS = ("period", "effectivePeriod", "performedPeriod", "onsetPeriod", "occurrencePeriod", "executionPeriod")
_WHAT = (
    *("code", "vaccineCode", "medicationCodeableConcept", "type", "category", "class", "procedureCode", "serviceType"),
    *("reasonCode", "description", "title"),
)
_VALUES = (
    *("valueString", "valueCodeableConcept", "valueQuantity", "valueBoolean", "valueInteger", "valueDateTime"),
    *("valueRange", "valueRatio", "conclusion", "description", "summary"),
)
NAMES: dict[str, tuple[str, str]] = {
    "AllergyIntolerance": ("过敏", "Allergies"),
    "Appointment": ("预约", "Appointments"),
    "Binary": ("文件内容", "File contents"),
    "CarePlan": ("治疗方案", "Care plans"),
    "Communication": ("沟通记录", "Communications"),
    "Condition": ("诊断", "Diagnoses"),
    "Consent": ("知情同意", "Consents"),
    "DiagnosticReport": ("检查报告", "Reports"),
    "DocumentReference": ("文档", "Documents"),
    "Encounter": ("就诊", "Visits"),
    "ImagingStudy": ("影像检查", "Imaging studies"),
    "Immunization": ("接种", "Immunizations"),
    "MedicationRequest": ("用药医嘱", "Prescriptions"),
    "MedicationStatement": ("用药", "Medication"),
    "Observation": ("检查结果", "Results"),
    "Procedure": ("手术与操作", "Procedures"),
    "Provenance": ("来源记录", "Where it came from"),
    "QuestionnaireResponse": ("问卷", "Questionnaires"),
    "RelatedPerson": ("亲属与联系人", "Relatives"),
    "RiskAssessment": ("风险评估", "Risk assessments"),
    "ServiceRequest": ("检查申请", "Orders"),
    "Task": ("任务", "Tasks"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table."""

    date: str
    what: str
    value: str
    status: str


@dataclass(slots=True)
class Summary:
    """What the page tells: a few facts of the person, and the newest rows of each type."""

    patient: str
    most: int
    person: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    accesses: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    count_accesses: int = 0

    def add(self, resource: dict[str, Any]) -> None:
        """Take one resource of the export."""
        name = resource["resourceType"]
        self.counts[name] += 1
        if name == "Patient" and resource.get("id") == self.patient:
            self.person = resource
            return
        rows = self.rows.setdefault(name, [])
        rows.append(row_of(resource))
        if len(rows) > 2 * self.most:  # Only the newest are shown.
            rows.sort(key=_date, reverse=True)
            del rows[self.most :]

    def add_access(self, event: dict[str, Any]) -> None:
        """Take one event of `$access-log`; they come newest first."""
        self.count_accesses += 1
        if len(self.accesses) < self.most:
            first, *others = event.get("agent") or [{}]
            role = (first.get("role") or [{}])[0].get("text", "")
            who = (first.get("who") or {}).get("display", "")
            where = next((other.get("who", {}).get("display", "") for other in others), "")
            kind = (event.get("subtype") or [{}])[0].get("display", "")
            self.accesses.append((event.get("recorded", ""), kind, role, who or first.get("name", ""), where))

    def tables(self) -> list[tuple[str, tuple[str, str], int, list[Row]]]:
        """Return type, its names, how many there are, and the rows shown."""
        found = []
        for name in sorted(self.rows):
            rows = sorted(self.rows[name], key=_date, reverse=True)[: self.most]
            found.append((name, NAMES.get(name, (name, name)), self.counts[name], rows))
        return found


def _date(row: Row) -> str:
    return row.date


def row_of(resource: dict[str, Any]) -> Row:
    """Return what a person reads of a resource: when, what, value, status."""
    what = next((text for name in _WHAT if (text := _text(resource.get(name)))), "")
    parts = [
        _text(resource.get(name)) for name in _VALUES if name != "description" or what != _text(resource.get(name))
    ]
    for component in resource.get("component") or ():
        value = next((text for name in _VALUES if (text := _text(component.get(name)))), "")
        parts.append(f"{_text(component.get('code'))}: {value}")
    notes = [_text(note.get("text")) for note in resource.get("note") or () if isinstance(note, dict)]
    status = _text(resource.get("status")) or _text(resource.get("clinicalStatus"))
    return Row(_when(resource), what, "; ".join(part for part in (*parts, *notes) if part), status)


def _when(resource: dict[str, Any]) -> str:
    for name in _DATES:
        if isinstance(resource.get(name), str):
            return str(resource[name])
    for name in _PERIODS:
        period = resource.get(name)
        if isinstance(period, dict):
            return str(period.get("start") or period.get("end") or "")
    return ""


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "是 / yes" if value else "否 / no"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list):
        return ", ".join(filter(None, map(_text, value)))
    if not isinstance(value, dict):
        return ""
    if "coding" in value or "text" in value:
        coding = (value.get("coding") or [{}])[0]
        return str(value.get("text") or coding.get("display") or coding.get("code") or "")
    if "value" in value:
        return f"{value.get('comparator', '')}{value['value']} {value.get('unit') or value.get('code') or ''}".strip()
    if "low" in value or "high" in value:
        return f"{_text(value.get('low'))} – {_text(value.get('high'))}"
    return str(value.get("display") or value.get("code") or "")


def facts(person: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, identifiers and the like: (zh, en, text)."""
    names = [
        name.get("text") or " ".join([*name.get("given", ()), name.get("family", "")]) for name in _l(person, "name")
    ]
    identifiers = [str(item.get("value", "")) for item in _l(person, "identifier")]
    telecom = [str(item.get("value", "")) for item in _l(person, "telecom")]
    places = [
        item.get("text") or " ".join([*item.get("line", ()), item.get("city", "")]) for item in _l(person, "address")
    ]
    found = (
        ("姓名", "Name", names),
        ("证件与病历号", "Identifiers", identifiers),
        ("性别", "Gender", [person.get("gender", "")]),
        ("出生日期", "Birth date", [person.get("birthDate", "")]),
        ("联系方式", "Contact", telecom),
        ("地址", "Address", places),
    )
    return [(zh, en, "; ".join(filter(None, map(str, texts)))) for zh, en, texts in found if any(texts)]


def _l(resource: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [item for item in resource.get(name) or () if isinstance(item, dict)]


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("summary.html")


def page(summary: Summary, studies: list[dict[str, Any]], at: int) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    at : moment of the export, microseconds since 1970
    """
    return _template().render(
        made=datetime.fromtimestamp(at / _EPOCH_MICROS, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        facts=facts(summary.person),
        tables=summary.tables(),
        most=summary.most,
        accesses=summary.accesses,
        count_accesses=summary.count_accesses,
        studies=studies,
    )
