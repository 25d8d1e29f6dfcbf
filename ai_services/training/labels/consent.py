"""Whether a patient's Consents let research use their labels. Pure; what cannot be read never permits.

https://hl7.org/fhir/R4/consent.html (scope ``research``, provision). The server's own rule (docs/api/consent.md) hides
records from callers; this one asks what the person agreed to.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from enum import Enum
from typing import Any

RESEARCH_SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope|research"
_RESEARCH_PURPOSE = ("http://terminology.hl7.org/CodeSystem/v3-ActReason", "HRESCH")
_LIMITS = ("actor", "action", "securityLabel", "class", "code", "dataPeriod", "data", "provision", "modifierExtension")
"""Elements that narrow a permit in a way that is not read here: it then permits nothing."""


class ConsentRule(Enum):
    """Who takes part."""

    PERMITTED = "permitted"
    """Only who permits research."""
    NOT_DENIED = "not-denied"
    """Everybody who does not deny it; another legal basis has to be named."""


def may_use(consents: Iterable[dict[str, Any]], on: date, rule: ConsentRule) -> bool:
    """Whether a patient takes part.

    Parameters
    ----------
    consents : all Consents of the patient
    on : day of the draw
    rule : who takes part
    """
    research = [item for item in consents if item.get("status") == "active" and _is_for_research(item)]
    if any(_denies(item.get("provision", {}), on) for item in research):
        return False
    return rule is ConsentRule.NOT_DENIED or any(_permits(item, on) for item in research)


def _is_for_research(consent: dict[str, Any]) -> bool:
    system, _, code = RESEARCH_SCOPE.partition("|")
    return any(
        coding.get("system") == system and coding.get("code") == code
        for coding in consent.get("scope", {}).get("coding", [])
    )


def _denies(provision: dict[str, Any], on: date) -> bool:
    """Whether there is a denial in force, however deep and however narrow: one we cannot read whole denies all."""
    if provision.get("type") == "deny" and _lasts(provision.get("period"), on, unknown=True):
        return True
    return any(_denies(item, on) for item in provision.get("provision", []))


def _permits(consent: dict[str, Any], on: date) -> bool:
    provision = consent.get("provision", {})
    if provision.get("type") != "permit" or "modifierExtension" in consent:
        return False
    if any(limit in provision for limit in _LIMITS) or not _lasts(provision.get("period"), on, unknown=False):
        return False
    purposes = [(item.get("system"), item.get("code")) for item in provision.get("purpose", [])]
    return not purposes or _RESEARCH_PURPOSE in purposes


def _lasts(period: dict[str, Any] | None, on: date, *, unknown: bool) -> bool:
    """Whether a day lies in a period; `unknown` where its dates are not whole days."""
    if period is None:
        return True
    try:
        start = date.fromisoformat(str(period["start"])[:10]) if "start" in period else date.min
        end = date.fromisoformat(str(period["end"])[:10]) if "end" in period else date.max
    except ValueError:
        return unknown
    return start <= on <= end
