"""One watch of a model version over a period: what changed, who overrides it more, and what cannot be told. Pure.

The period's end bounds decisions too, so that the same period gives the same watch whenever it is computed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ai_services.monitoring.distributions import Comparison, Sample, compare
from ai_services.monitoring.judged import JudgedFinding, JudgedReport
from ai_services.monitoring.overrides import Decided, Rate, by_group, overall
from ai_services.monitoring.reference import Reference
from ai_services.monitoring.strata import KINDS
from ai_services.monitoring.thresholds import Thresholds
from terminology.codes import MORPHOLOGY, PFIRRMANN

SCORES = ("morphology", "morphology-confidence", "grade", "grade-expected", "grade-confidence", "height-index", "canal")
"""What is compared: what the version calls, how sure it is, and what it measures."""
CLASSES = {"morphology": MORPHOLOGY, "grade": PFIRRMANN}
"""Scores that are classes: their codes, in order."""
_CLASSES = {score: tuple(codes) for score, codes in CLASSES.items()}
_MEASURED = {"height-index": "F13", "canal": "canal-ap"}
_CODES = {"morphology": "F01", "grade": "F06"}


@dataclass(frozen=True, slots=True)
class Watch:
    """The result.

    Parameters
    ----------
    name, version : of the model
    since, until : FHIR instants, the end not included
    reports : results in the period, one a study; None where there are so few that the number is not told
    drift : each score against the reference
    overrides : over all decided reports
    groups : kind → group → rate
    reference : digest of the reference, None where there is none
    thresholds : digest of the thresholds
    left_out : why results are not among them, with their number
    synthetic : whether any of it is
    """

    name: str
    version: str
    since: str
    until: str
    reports: int | None
    drift: tuple[Comparison, ...]
    overrides: Rate
    groups: Mapping[str, Mapping[str, Rate]]
    reference: str | None
    thresholds: str
    left_out: Mapping[str, int]
    synthetic: bool
    reach: str | None = None
    """Organization whose patients alone were looked at; None: everybody's."""

    @property
    def outcome(self) -> str:
        """``alarm``, ``too-few`` (something could not be told, which is not steady) or ``steady``."""
        rates = [self.overrides, *(rate for group in self.groups.values() for rate in group.values())]
        outcomes = [item.outcome for item in self.drift] + [item.outcome for item in rates]
        if "alarm" in outcomes:
            return "alarm"
        return "steady" if set(outcomes) <= {"steady"} else "too-few"


def watch(
    name: str,
    version: str,
    period: tuple[str, str],
    reports: Sequence[JudgedReport],
    groups_of: Mapping[str, Mapping[str, str]],
    reference: Reference | None,
    thresholds: Thresholds,
    left_out: Mapping[str, int],
    reach: str | None = None,
) -> Watch:
    """Watch a version.

    Parameters
    ----------
    name, version : of the model
    period : FHIR instants, from and until
    reports : of the version in the period
    groups_of : groups by kind, by reference of the report
    reference, thresholds : to compare with
    left_out : what could not be read
    reach : Organization (id) whose patients alone could be read
    """
    one_each = latest(reports)
    decided = [
        Decided(report.patient, report.is_overridden, groups_of[report.reference])
        for report in one_each
        if report.is_decided
    ]
    cells = sum(len({item.groups[kind] for item in decided}) for kind in KINDS)
    checks = max(1, len(SCORES) + cells)
    samples = samples_of(one_each)
    return Watch(
        name=name,
        version=version,
        since=period[0],
        until=period[1],
        reports=None if len({report.patient for report in one_each}) < thresholds.cell else len(one_each),
        drift=tuple(
            compare(score, samples[score], reference.samples.get(score) if reference else None, thresholds, checks)
            for score in SCORES
        ),
        overrides=overall(decided, thresholds),
        groups={kind: by_group(decided, kind, thresholds, checks) for kind in KINDS},
        reference=reference.digest if reference else None,
        thresholds=thresholds.digest,
        left_out={key: count for key, count in sorted(left_out.items()) if count},
        synthetic=any(report.synthetic for report in one_each),
        reach=reach,
    )


def latest(reports: Iterable[JudgedReport]) -> list[JudgedReport]:
    """One report a study: the decided one, else the last that was written; in order of their references."""
    best: dict[str, JudgedReport] = {}
    for report in sorted(reports, key=lambda item: (item.is_decided, item.written, item.reference)):
        best[report.imaging_study or report.reference] = report
    return sorted(best.values(), key=lambda item: item.reference)


def samples_of(reports: Iterable[JudgedReport]) -> dict[str, Sample]:
    """Scores by kind, those of a patient together; patients in an order that tells nothing of them."""
    found: dict[str, dict[str, list[float]]] = {score: defaultdict(list) for score in SCORES}
    for report in reports:
        for finding in report.findings:
            for score, value in _scores(finding):
                found[score][report.patient].append(value)
    return {
        score: Sample(tuple(sorted(tuple(sorted(values)) for values in people.values())), _CLASSES.get(score, ()))
        for score, people in found.items()
    }


def _scores(finding: JudgedFinding) -> list[tuple[str, float]]:
    said, told = finding.said, []
    for score, code in _CODES.items():
        if finding.code == code and said is not None and said.code in _CLASSES[score]:
            told.append((score, float(_CLASSES[score].index(said.code))))
            if finding.confidence is not None:
                told.append((f"{score}-confidence", finding.confidence))
            if score == "grade" and finding.expected is not None:
                told.append(("grade-expected", finding.expected))
    for score, code in _MEASURED.items():
        if finding.code == code and said is not None and said.number is not None:
            told.append((score, said.number))
    return told
