"""A watch of a model version, read back from its MeasureReport: rates, distributions, outcomes. Pure.

https://hl7.org/fhir/R4/measurereport.html; what writes it is `ai_services.monitoring.measure` (ADR 0053, 0056). A cell
that is suppressed has neither count nor rate; what cannot be told has no score, and is never shown as steady.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

Resource = dict[str, Any]
BASE = "https://foramen.example/fhir"
IDENTIFIER = f"{BASE}/identifier/model-watch"
OUTCOMES = ("alarm", "too-few", "no-reference", "suppressed", "steady")
"""An outcome that is not among them is called ``too-few``: it cannot be told."""
_VERDICT = f"{BASE}/StructureDefinition/watch-verdict"
_INTERVAL = f"{BASE}/StructureDefinition/interval-95"
_P_VALUE = f"{BASE}/StructureDefinition/p-value"
_REFERENCE_SHARE = f"{BASE}/StructureDefinition/reference-share"
_OVERRIDE = "override"


@dataclass(frozen=True, slots=True)
class Rate:
    """How often results of a group were overridden; None: not told."""

    name: str
    outcome: str
    overridden: int | None
    decided: int | None
    value: float | None
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True, slots=True)
class Bar:
    """One bin of a distribution: name in Chinese and English, share in the reference and in the period, 0 to 1."""

    zh: str
    en: str
    before: float
    now: float


@dataclass(frozen=True, slots=True)
class Drift:
    """One score against its reference; None: not told."""

    name: str
    outcome: str
    patients: int | None
    psi: float | None
    p: float | None
    ks: float | None
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Watch:
    """One watch.

    Parameters
    ----------
    id : logical id of the MeasureReport
    pipeline, version : of the model
    since, until : the period, the end not included
    made : when it was computed
    outcome : of the whole
    reach : Organization (id) whose patients alone were looked at; None: everybody's
    overrides : over all
    groups : kind → rates of its groups
    drift : every score
    """

    id: str
    pipeline: str
    version: str
    since: datetime
    until: datetime
    made: datetime
    outcome: str
    synthetic: bool
    reach: str | None
    overrides: Rate
    groups: dict[str, tuple[Rate, ...]]
    drift: tuple[Drift, ...]


def read_watch(report: Resource) -> Watch | None:
    """Read a MeasureReport; None where it is no watch, or not a whole one."""
    try:
        name = next(item["value"] for item in report["identifier"] if item.get("system") == IDENTIFIER)
        pipeline, _, version = name.rpartition("-")[0].partition("-")
        groups = {_code_of(group): group for group in report["group"]}
        overall = groups.pop(_OVERRIDE)
        return Watch(
            id=str(report["id"]),
            pipeline=pipeline,
            version=version,
            since=_instant(report["period"]["start"]),
            until=_instant(report["period"]["end"]),
            made=_instant(report["date"]),
            outcome=_outcome(report),
            synthetic="SYNTHETIC" in [tag.get("code") for tag in report.get("meta", {}).get("tag", [])],
            reach=_reach(report),
            overrides=_rate(overall, "all"),
            groups={
                _code_of({"code": item["code"][0]}): tuple(
                    _rate(cell, str(cell["value"]["text"])) for cell in item["stratum"]
                )
                for item in overall.get("stratifier", [])
            },
            drift=tuple(_drift(code, group) for code, group in groups.items()),
        )
    except (KeyError, IndexError, StopIteration, TypeError, ValueError, AttributeError):
        return None


def _rate(group: Resource, name: str) -> Rate:
    counts = {
        item["code"]["coding"][0]["code"]: int(item["count"]) for item in group.get("population", []) if "count" in item
    }
    interval = _extension(group, _INTERVAL).get("valueRange", {})
    return Rate(
        name=name,
        outcome=_outcome(group),
        overridden=counts.get("numerator"),
        decided=counts.get("denominator"),
        value=_score(group),
        low=_share(interval.get("low", {}).get("value")),
        high=_share(interval.get("high", {}).get("value")),
        p=_number(_extension(group, _P_VALUE).get("valueDecimal")),
    )


def _drift(code: str, group: Resource) -> Drift:
    strata = {_code_of({"code": item["code"][0]}): item["stratum"] for item in group.get("stratifier", [])}
    distance = strata.get("distance", [{}])[0]
    patients = [item["count"] for item in group.get("population", []) if "count" in item]
    return Drift(
        name=code,
        outcome=_outcome(group),
        patients=int(patients[0]) if patients else None,
        psi=_score(group),
        p=_number(_extension(group, _P_VALUE).get("valueDecimal")),
        ks=_score(distance),
        bars=tuple(_bar(item) for item in strata.get("share", [])),
    )


def _bar(stratum: Resource) -> Bar:
    value = stratum["value"]
    english = next((coding["display"] for coding in value.get("coding", []) if "display" in coding), value["text"])
    before = _share(_extension(stratum, _REFERENCE_SHARE)["valueDecimal"])
    return Bar(str(value["text"]), str(english), before or 0.0, _share(stratum["measureScore"]["value"]) or 0.0)


def _outcome(holder: Resource) -> str:
    found = str(_extension(holder, _VERDICT).get("valueCode", ""))
    return found if found in OUTCOMES else "too-few"


def _code_of(holder: Resource) -> str:
    return str(holder["code"]["coding"][0]["code"])


def _extension(holder: Resource, url: str) -> Resource:
    found: Resource = next((item for item in holder.get("extension", []) if item.get("url") == url), {})
    return found


def _score(holder: Resource) -> float | None:
    return _number(holder.get("measureScore", {}).get("value"))


def _share(value: Any) -> float | None:
    found = _number(value)
    return None if found is None else min(max(found, 0.0), 1.0)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _reach(report: Resource) -> str | None:
    reference = str(report.get("reporter", {}).get("reference", ""))
    return reference.rpartition("/")[2] or None


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
