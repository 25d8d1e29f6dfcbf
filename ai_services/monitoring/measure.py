"""A watch as FHIR: one Measure that says what is measured, one MeasureReport a version and period. Pure.

https://hl7.org/fhir/R4/measure.html, https://hl7.org/fhir/R4/measurereport.html. A suppressed cell has its name and
the data-absent-reason `masked`, never a zero; what cannot be told has no score.
"""

from __future__ import annotations

import hashlib
from typing import Any

from ai_services.monitoring.distributions import Comparison
from ai_services.monitoring.overrides import Rate
from ai_services.monitoring.watch import CLASSES, SCORES, Watch
from terminology import systems
from terminology.codes import SYNTHETIC

Resource = dict[str, Any]
MEASURE_VERSION = "1.2.0"
_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
_SCORING = "http://terminology.hl7.org/CodeSystem/measure-scoring"
_POPULATION = "http://terminology.hl7.org/CodeSystem/measure-population"
_OVERRIDE = "override"
_DIGITS = 4
_SHARE_DIGITS = 2


def measure() -> Resource:
    """What a watch measures, by its canonical URL."""
    group = [_group_definition(_OVERRIDE, "decided reports in which a person changed or took back what the model said")]
    group += [_group_definition(score, f"distribution of {score} against the release's reference") for score in SCORES]
    return {
        "resourceType": "Measure",
        "url": systems.MODEL_WATCH,
        "version": MEASURE_VERSION,
        "name": "ModelWatch",
        "title": "模型监测 Model watch",
        "status": "active",
        "experimental": False,
        "publisher": "The Foramen authors",
        "description": "Score distributions, and overrides by site, scanner, sex and age, of one model version.",
        "scoring": {"coding": [{"system": _SCORING, "code": "proportion"}]},
        "group": group,
    }


def measure_report(watch: Watch, now: str) -> Resource:
    """The MeasureReport of a watch.

    Parameters
    ----------
    watch : the result
    now : FHIR instant; the only thing that differs when the same watch is computed again
    """
    tags = {"meta": {"tag": [SYNTHETIC.coding()]}} if watch.synthetic else {}
    return {
        "resourceType": "MeasureReport",
        **tags,
        "extension": [_verdict(watch.outcome)],
        "identifier": [{"system": systems.IDENTIFIER_MODEL_WATCH, "value": key(watch)}],
        "status": "complete",
        "type": "summary",
        "measure": f"{systems.MODEL_WATCH}|{MEASURE_VERSION}",
        "date": now,
        "period": {"start": watch.since, "end": watch.until},
        **({"reporter": {"reference": f"Organization/{watch.reach}"}} if watch.reach else {}),
        "group": [_overrides(watch), *(_drift(item) for item in watch.drift)],
    }


def key(watch: Watch) -> str:
    """Names a watch by model, period, reference and thresholds: the same one is written to the same resource."""
    parts = (
        watch.name,
        watch.version,
        watch.since,
        watch.until,
        watch.reference or "",
        watch.thresholds,
        watch.reach or "",
    )
    return f"{watch.name}-{watch.version}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32]}"


def same(one: Resource, other: Resource) -> bool:
    """Whether two MeasureReports say the same, whenever they were computed."""
    return _said(one) == _said(other)


def _said(report: Resource) -> Resource:
    kept = {name: value for name, value in report.items() if name not in ("id", "meta", "date", "text")}
    return {**kept, "tag": [tag.get("code") for tag in report.get("meta", {}).get("tag", [])]}


def _overrides(watch: Watch) -> Resource:
    stratifiers = [
        {"code": [_concept(kind)], "stratum": [_stratum(name, rate) for name, rate in groups.items()]}
        for kind, groups in watch.groups.items()
        if groups
    ]
    found = {"code": _concept(_OVERRIDE), **_counted(watch.overrides)}
    return {**found, "stratifier": stratifiers} if stratifiers else found


def _stratum(name: str, rate: Rate) -> Resource:
    return {"value": {"text": name}, **_counted(rate)}


def _counted(rate: Rate) -> Resource:
    extensions = [_verdict(rate.outcome)]
    if rate.p is not None:
        extensions.append({"url": systems.EXTENSION_P_VALUE, "valueDecimal": round(rate.p, _DIGITS)})
    if rate.decided is None or rate.overridden is None:
        return {"extension": extensions, "measureScore": {"extension": [{"url": _ABSENT, "valueCode": "masked"}]}}
    populations: list[Resource] = [
        {"code": _population("denominator"), "count": rate.decided},
        {"code": _population("numerator"), "count": rate.overridden},
    ]
    if rate.low is not None and rate.high is not None:
        low, high = ({"value": round(edge, _DIGITS)} for edge in (rate.low, rate.high))
        extensions.append({"url": systems.EXTENSION_INTERVAL_95, "valueRange": {"low": low, "high": high}})
    found: Resource = {"extension": extensions, "population": populations}
    if rate.value is not None:
        found["measureScore"] = _number(rate.value)
    return found


def _drift(item: Comparison) -> Resource:
    extensions = [_verdict(item.outcome)]
    if item.p_psi is not None:
        extensions.append({"url": systems.EXTENSION_P_VALUE, "valueDecimal": round(item.p_psi, _DIGITS)})
    found: Resource = {"extension": extensions, "code": _concept(item.name)}
    if item.patients is not None:
        found["population"] = [{"code": _population("initial-population"), "count": item.patients}]
    if item.psi is None or item.ks is None:
        absent = "masked" if item.patients is None else "unknown"
        return {**found, "measureScore": {"extension": [{"url": _ABSENT, "valueCode": absent}]}}
    distance: Resource = {"value": {"text": "Kolmogorov-Smirnov"}, "measureScore": _number(item.ks)}
    if item.p_ks is not None:
        distance["extension"] = [{"url": systems.EXTENSION_P_VALUE, "valueDecimal": round(item.p_ks, _DIGITS)}]
    stratifiers = [{"code": [_concept("distance")], "stratum": [distance]}]
    if item.bins:
        stratifiers.append({"code": [_concept("share")], "stratum": [_bin(item.name, *one) for one in item.bins]})
    return {**found, "measureScore": _number(item.psi), "stratifier": stratifiers}


def _bin(score: str, name: str, before: float, now: float) -> Resource:
    """One bar of a distribution, in whole percent: what a single score adds cannot be told from it."""
    known = CLASSES.get(score, {}).get(name)
    value = {"coding": [known.coding()], "text": known.display_zh} if known else {"text": name}
    reference = {"url": systems.EXTENSION_REFERENCE_SHARE, "valueDecimal": round(before, _SHARE_DIGITS)}
    return {"extension": [reference], "value": value, "measureScore": _number(round(now, _SHARE_DIGITS))}


def _group_definition(code: str, text: str) -> Resource:
    return {"code": _concept(code), "description": text}


def _verdict(outcome: str) -> Resource:
    return {"url": systems.EXTENSION_WATCH_VERDICT, "valueCode": outcome}


def _concept(code: str) -> Resource:
    return {"coding": [{"system": systems.WATCH_CODE, "code": code}]}


def _population(code: str) -> Resource:
    return {"coding": [{"system": _POPULATION, "code": code}]}


def _number(value: float) -> Resource:
    return {"value": round(value, _DIGITS), "system": systems.UCUM, "code": "1"}
