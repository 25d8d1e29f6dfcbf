"""SYNTHETIC results as physicians judged them, watches of them, and the MeasureReports that say so."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from ai_services.monitoring.judged import Decision, JudgedFinding, JudgedReport
from ai_services.monitoring.measure import measure_report
from ai_services.monitoring.observed import Value
from ai_services.monitoring.reference import Reference
from ai_services.monitoring.thresholds import read_thresholds
from ai_services.monitoring.watch import Watch, samples_of, watch

LIMITS = replace(read_thresholds(), permutations=199)  # as many as the error needs, no more
PERIOD = ("2026-07-01T00:00:00Z", "2026-10-01T00:00:00Z")
SHA = "SYNTHETIC"


def finding(code: str, said: str, verdict: str, confidence: float, expected: float | None, level: str) -> JudgedFinding:
    """One judged finding."""
    value = Value("code", said, "SYNTHETIC")
    after = value if verdict == "agreed" else None
    return JudgedFinding(
        f"Observation/{code}{level}",
        code,
        level,
        "Device/d",
        value,
        after,
        verdict,  # type: ignore[arg-type]
        confidence,
        expected,
        None,
        None,
        None,
    )


def reports(
    count: int, seed: int, *, shift: float = 0.0, overridden: float = 0.1, prefix: str = "p"
) -> list[JudgedReport]:
    """SYNTHETIC results: five alike discs a patient; `shift` moves the grades of all."""
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        spine = generator.normal(2.8 + shift, 0.7)
        verdict = "corrected" if generator.random() < overridden else "agreed"
        findings = []
        for level in ("L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2"):
            expected = float(np.clip(spine + generator.normal(0, 0.3), 1, 5))
            confidence = float(generator.uniform(0.4, 0.95))
            findings.append(finding("F06", str(round(expected)), verdict, confidence, expected, level))
            findings.append(finding("F01", "bulge", verdict, confidence, None, level))
        decision = Decision("Practitioner/x", "2026-08-02T00:00:00Z", "verify", frozenset())
        made.append(
            JudgedReport(
                reference=f"DiagnosticReport/{prefix}{number}",
                patient=f"Patient/{prefix}{number}",
                imaging_study=f"ImagingStudy/{prefix}{number}",
                source_series_uid=None,
                status="final",
                written="2026-08-01T00:00:00Z",
                effective="2026-08-01",
                synthetic=True,
                devices=frozenset({"Device/d"}),
                findings=tuple(findings),
                decision=decision,
            )
        )
    return made


def groups(found: list[JudgedReport], small: int = 0) -> dict[str, dict[str, str]]:
    """Two scanners and sexes; the first `small` reports are from a site of their own."""
    return {
        report.reference: {
            "site": "small" if index < small else "north",
            "scanner": f"SYNTHETIC {index % 2}",
            "sex": ("female", "male")[index // 2 % 2],
            "age": "40-59",
        }
        for index, report in enumerate(found)
    }


def reference_of(found: list[JudgedReport]) -> Reference:
    """Results as a frozen reference."""
    return Reference("lumbar_mr", "0.2.0", *PERIOD, samples_of(found), SHA)


def watched(
    found: list[JudgedReport],
    known: Reference | None,
    small: int = 0,
    period: tuple[str, str] = PERIOD,
    reach: str | None = None,
) -> Watch:
    """Watch SYNTHETIC results as the command does."""
    return watch(
        "lumbar_mr", "0.2.0", period, found, groups(found, small), known, LIMITS, {"findings-hidden": 2}, reach
    )


def watch_reports() -> list[dict[str, Any]]:
    """MeasureReports of three periods, the last of which alarms, and one about one institution alone."""
    known, made = reference_of(reports(80, 1)), []
    months = ("2026-04-01", "2026-07-01", "2026-10-01", "2026-11-01")
    for number, (since, until) in enumerate(itertools.pairwise(months)):
        late = number == 2
        found = reports(60, 10 + number, shift=1.0 if late else 0.0, overridden=0.55 if late else 0.12)
        result = watched(found, known, 12 * (number % 2), (f"{since}T00:00:00Z", f"{until}T00:00:00Z"))
        made.append({**measure_report(result, f"{until}T02:00:00Z"), "id": f"watch-{number}"})
    own = watched(reports(40, 20), None, 0, PERIOD, "north")
    return [*made, {**measure_report(own, "2026-10-02T00:00:00Z"), "id": "watch-north"}]
