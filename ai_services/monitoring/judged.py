"""What a model said of a study beside what a person made of it: a pure reading of FHIR resources (stage 11).

The version of an Observation that its creation wrote is the model's; a Provenance with a practitioner as `verifier`
names the version that was judged, and the update in the same transaction is the person's (clinical model §6.3, §6.4).
https://hl7.org/fhir/R4/provenance.html, https://hl7.org/fhir/R4/http.html#vread
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from ai_services.monitoring.observed import (
    Resource,
    Value,
    code_of,
    component_of,
    is_numbering_confident,
    plain,
    value_of,
)
from terminology import systems

Verdict = Literal["agreed", "corrected", "rejected", "open", "closed"]
"""agreed: signed as the model said it; corrected: a person set another value; rejected: the report was taken back
without another value; open: nobody has decided; closed: superseded or recalled before anybody did."""

_SETTLED = frozenset({"final", "amended", "corrected"})
_REJECTED = "entered-in-error"
_UNDECIDED = frozenset({"preliminary", "partial"})


@dataclass(frozen=True, slots=True)
class Decision:
    """One practitioner's signature: who (reference), when (FHIR instant), verify, amend or reject, versions judged."""

    who: str
    recorded: str
    kind: str
    targets: frozenset[str]
    judged: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JudgedFinding:
    """One Observation: what the model wrote, and what stands after the last decision on it.

    Parameters
    ----------
    reference : ``Observation/id``
    code, level : finding and disc level, None where it is about the study
    device : ``Device/id`` of the model
    said : the model's value; None where it was words, or is not kept any more
    after : the person's value; None unless somebody settled it
    verdict : see `Verdict`
    confidence, expected : the model's, where it gave them
    segment_number, numbering_confident : as the model wrote them
    decision : the last one on this Observation
    """

    reference: str
    code: str
    level: str | None
    device: str | None
    said: Value | None
    after: Value | None
    verdict: Verdict
    confidence: float | None
    expected: float | None
    segment_number: int | None
    numbering_confident: bool | None
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class JudgedReport:
    """One DiagnosticReport of a model with its findings; references are literal, `written` and `effective` FHIR dates.

    `devices` are the models that its Provenance names, empty where none does.
    """

    reference: str
    patient: str
    imaging_study: str | None
    source_series_uid: str | None
    status: str
    written: str
    effective: str
    synthetic: bool
    devices: frozenset[str]
    findings: tuple[JudgedFinding, ...]
    decision: Decision | None

    @property
    def is_decided(self) -> bool:
        """Whether a person signed or rejected it."""
        return self.decision is not None

    @property
    def is_overridden(self) -> bool:
        """Whether the decision changed what the model said, or took it back."""
        return any(finding.verdict in ("corrected", "rejected") for finding in self.findings)


def decisions_of(provenances: Iterable[Resource]) -> list[Decision]:
    """Signatures of practitioners, oldest first; those of models are none."""
    found = []
    for provenance in provenances:
        who = next((_who(agent) for agent in provenance.get("agent", []) if _is_verifier(agent)), None)
        if who is None or not who.startswith("Practitioner/"):
            continue
        judged = {}
        for entity in provenance.get("entity", []):
            reference, _, version = str(entity.get("what", {}).get("reference", "")).partition("/_history/")
            if entity.get("role") == "revision" and version:
                judged[reference] = version
        targets = frozenset(plain(str(target.get("reference", ""))) for target in provenance.get("target", []))
        found.append(Decision(who, str(provenance["recorded"]), _kind(provenance), targets, judged))
    return sorted(found, key=lambda item: (item.recorded, item.who))


def wanted_versions(observations: Iterable[Resource], decisions: Sequence[Decision]) -> list[str]:
    """References of versions that have to be read beside the current ones, ``Observation/id/_history/n``."""
    wanted = set()
    for observation in observations:
        reference, current = f"Observation/{observation['id']}", observation["meta"]["versionId"]
        wanted |= {f"{reference}/_history/{number}" for number in {"1", _after(reference, decisions)} - {None, current}}
    return sorted(wanted)


def judge(
    report: Resource,
    observations: Sequence[Resource],
    versions: Mapping[str, Resource],
    provenances: Sequence[Resource],
    until: str | None = None,
) -> JudgedReport:
    """Put together what was said and what was decided.

    Parameters
    ----------
    report : the DiagnosticReport as it is
    observations : of its `result`, as they are, all of them
    versions : older versions by reference (`wanted_versions`); one that is not there is not known any more
    provenances : with the report among their targets
    until : FHIR instant; decisions from it on do not count
    """
    reference = f"DiagnosticReport/{report['id']}"
    decisions = [item for item in decisions_of(provenances) if until is None or before(item.recorded, until)]
    own = [item for item in decisions if reference in item.targets]
    findings = tuple(_finding(item, versions, decisions) for item in observations)
    tags = {tag.get("code") for tag in report.get("meta", {}).get("tag", [])}
    study = next((item.get("reference") for item in report.get("imagingStudy", [])), None)
    return JudgedReport(
        reference=reference,
        patient=plain(str(report["subject"]["reference"])),
        imaging_study=study,
        source_series_uid=_source_series(report),
        status=str(report["status"]),
        written=_written(report, provenances),
        effective=str(report.get("effectiveDateTime") or report.get("issued") or ""),
        synthetic="SYNTHETIC" in tags,
        devices=models_of(provenances),
        findings=findings,
        decision=own[-1] if own else None,
    )


def models_of(provenances: Iterable[Resource]) -> frozenset[str]:
    """Devices that the Provenances name as authors."""
    agents = [agent for provenance in provenances for agent in provenance.get("agent", [])]
    return frozenset(who for agent in agents if (who := _who(agent)).startswith("Device/"))


def before(instant: str, limit: str) -> bool:
    """Whether a FHIR instant lies before another; both are compared in UTC.

    Raises
    ------
    ValueError
        One of them is no instant.
    """
    return datetime.fromisoformat(instant) < datetime.fromisoformat(limit)


def _finding(observation: Resource, versions: Mapping[str, Resource], decisions: Sequence[Decision]) -> JudgedFinding:
    reference, current = f"Observation/{observation['id']}", observation["meta"]["versionId"]
    own = [item for item in decisions if reference in item.targets]
    at = _after(reference, own)
    settled = observation if at in (None, current) else versions.get(f"{reference}/_history/{at}")
    first = observation if current == "1" else versions.get(f"{reference}/_history/1")
    said = value_of(first) if first else None
    segment = component_of(first, "segment-number")
    after = value_of(settled) if own and settled and settled.get("status") in _SETTLED else None
    status = str((settled if own and settled else observation).get("status"))
    return JudgedFinding(
        reference=reference,
        code=code_of(observation.get("code"), systems.FINDING) or "",
        level=code_of(observation.get("bodySite"), systems.LEVEL),
        device=observation.get("device", {}).get("reference"),
        said=said,
        after=after,
        verdict=_verdict(status, said, after, decided=bool(own)),
        confidence=component_of(first, "confidence"),
        expected=component_of(first, "expected"),
        segment_number=None if segment is None else int(segment),
        numbering_confident=is_numbering_confident(first),
        decision=own[-1] if own else None,
    )


def _verdict(status: str, said: Value | None, after: Value | None, *, decided: bool) -> Verdict:
    if not decided:
        return "open" if status in _UNDECIDED | _SETTLED else "closed"
    if status == _REJECTED:
        return "rejected"
    if after is None:
        return "closed"
    return "agreed" if said == after else "corrected"


def _after(reference: str, decisions: Sequence[Decision]) -> str | None:
    """Version that the last decision wrote: the one after the version it judged."""
    judged = [item.judged[reference] for item in decisions if reference in item.judged]
    return str(int(judged[-1]) + 1) if judged and judged[-1].isdigit() else None


def _written(report: Resource, provenances: Iterable[Resource]) -> str:
    by_models = [str(item["recorded"]) for item in provenances if models_of([item])]
    return min(by_models, default=str(report.get("issued", "")))


def _kind(provenance: Resource) -> str:
    for coding in provenance.get("activity", {}).get("coding", []):
        if coding.get("system") == systems.DECISION:
            return str(coding.get("code"))
    return "unsaid"


def _is_verifier(agent: Resource) -> bool:
    return code_of(agent.get("type"), systems.PROVENANCE_AGENT) == "verifier"


def _who(agent: Resource) -> str:
    return str(agent.get("who", {}).get("reference", ""))


def _source_series(report: Resource) -> str | None:
    for extension in report.get("extension", []):
        if extension.get("url") == systems.EXTENSION_SOURCE_SERIES:
            return str(extension.get("valueUri", "")).removeprefix("urn:oid:") or None
    return None
