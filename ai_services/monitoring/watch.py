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

_MR_SCORES = (
    *("morphology", "morphology-confidence", "grade", "grade-expected", "grade-confidence", "height-index", "canal"),
)
_SIDED = ("facet-angle", "foramen-height", "foramen-width", "foramen-area", "pedicle-width")
_CT_SCORES = (*_SIDED, "facet-tropism", "canal-width-bone", "canal-ap-bone")
_SCORES = {"lumbar_ct": _CT_SCORES}
SCORES = (*_MR_SCORES, *_CT_SCORES)
"""What is compared, of all pipelines: what a version calls, how sure it is, and what it measures."""
CLASSES = {"morphology": MORPHOLOGY, "grade": PFIRRMANN}
"""Scores that are classes: their codes, in order."""
_CLASSES = {score: tuple(codes) for score, codes in CLASSES.items()}
_MEASURED = {
    "F13": "height-index",
    "canal-ap": "canal",
    **{f"{score}-{side}": score for score in _SIDED for side in ("right", "left")},
    **{code: code for code in ("facet-tropism", "canal-width-bone", "canal-ap-bone")},
}
"""Code of a measured finding → score; both sides of a patient are one score."""
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
    scores = scores_of(name)
    checks = max(1, len(scores) + cells)
    samples = samples_of(one_each, name)
    return Watch(
        name=name,
        version=version,
        since=period[0],
        until=period[1],
        reports=None if len({report.patient for report in one_each}) < thresholds.cell else len(one_each),
        drift=tuple(
            compare(score, samples[score], reference.samples.get(score) if reference else None, thresholds, checks)
            for score in scores
        ),
        overrides=overall(decided, thresholds),
        groups={kind: by_group(decided, kind, thresholds, checks) for kind in KINDS},
        reference=reference.digest if reference else None,
        thresholds=thresholds.digest,
        left_out={key: count for key, count in sorted(left_out.items()) if count},
        synthetic=any(report.synthetic for report in one_each),
        reach=reach,
    )


def scores_of(name: str) -> tuple[str, ...]:
    """Scores of a pipeline; those of MR for one that names none of its own."""
    return _SCORES.get(name, _MR_SCORES)


def latest(reports: Iterable[JudgedReport]) -> list[JudgedReport]:
    """One report a study: the decided one, else the last that was written; in order of their references."""
    best: dict[str, JudgedReport] = {}
    for report in sorted(reports, key=lambda item: (item.is_decided, item.written, item.reference)):
        best[report.imaging_study or report.reference] = report
    return sorted(best.values(), key=lambda item: item.reference)


def samples_of(reports: Iterable[JudgedReport], name: str = "lumbar_mr") -> dict[str, Sample]:
    """Scores of a pipeline by kind, those of a patient together; patients in an order that tells nothing of them."""
    found: dict[str, dict[str, list[float]]] = {score: defaultdict(list) for score in scores_of(name)}
    for report in reports:
        for finding in report.findings:
            for score, value in _scores_in(finding):
                if score in found:
                    found[score][report.patient].append(value)
    return {
        score: Sample(tuple(sorted(tuple(sorted(values)) for values in people.values())), _CLASSES.get(score, ()))
        for score, people in found.items()
    }


def _scores_in(finding: JudgedFinding) -> list[tuple[str, float]]:
    said, told = finding.said, []
    for score, code in _CODES.items():
        if finding.code == code and said is not None and said.code in _CLASSES[score]:
            told.append((score, float(_CLASSES[score].index(said.code))))
            if finding.confidence is not None:
                told.append((f"{score}-confidence", finding.confidence))
            if score == "grade" and finding.expected is not None:
                told.append(("grade-expected", finding.expected))
    measured = _MEASURED.get(finding.code)
    if measured is not None and said is not None and said.number is not None:
        told.append((measured, said.number))
    return told
