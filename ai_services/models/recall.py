"""Recall of a model: what a version wrote is listed, marked in the record, and who saw it is named (stage 11).

What it wrote is found by Provenance: its agents are Devices, named by the hash of the weights. What nobody verified is
closed, as a newer result would close it; what a person verified stays theirs and is marked only, to be looked at again.
A Provenance of its own says who recalled it, when and why, so that whoever meets the mark can read that. The Task that
asked for it stays completed and says so in its business status, by which worklists find what has to be looked at again;
asked for anew, it says it no longer. https://hl7.org/fhir/R4/task-definitions.html#Task.businessStatus
https://hl7.org/fhir/R4/provenance.html, https://hl7.org/fhir/R4/auditevent.html
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ai_services.results.supersede import close_unverified
from foramen.kernel.errors import DeletedError, NotFoundError
from foramen.kernel.fhir_client import FhirClient, next_cursor
from terminology import systems
from terminology.codes import MODEL_RECALLED, SYNTHETIC

Resource = dict[str, Any]
_PAGE = "100"
_READ_ACTION = "R"


@dataclass(frozen=True, slots=True)
class Written:
    """One run's results in the record.

    Parameters
    ----------
    provenance : reference of the Provenance that says so
    recorded : FHIR instant
    targets : references of what was written
    sources : references of what it was made from
    objects : SOP Instance UIDs of the DICOM objects that it stored
    """

    provenance: str
    recorded: str
    targets: tuple[str, ...]
    sources: tuple[str, ...]
    objects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recall:
    """The decision, as it will stand in the record.

    Parameters
    ----------
    by : who decided, as the history of the version names them
    reason : why; names no patient
    recorded : FHIR instant
    """

    by: str
    reason: str
    recorded: str


@dataclass(frozen=True, slots=True)
class Marked:
    """What was done with one resource: ``closed`` (nobody had verified it), ``marked``, ``already`` or ``gone``."""

    reference: str
    done: str
    status: str | None


async def written_by(fhir: FhirClient, weights: Iterable[str]) -> AsyncIterator[Written]:
    """Every run that all weights of a version took part in.

    Versions may share a weights file, so that one of them alone does not tell the version.

    Parameters
    ----------
    fhir : the record
    weights : SHA-256 of the version's files, hexadecimal
    """
    devices = []
    for sha256 in weights:
        found = await fhir.search("Device", [("identifier", f"{systems.IDENTIFIER_MODEL}|{sha256}")])
        if not found:
            return  # these weights never wrote anything
        devices.append(f"Device/{found[0]['id']}")
    async for provenance in _all(fhir, "Provenance", [("agent", devices[0])]):
        agents = {agent["who"].get("reference") for agent in provenance["agent"]}
        if set(devices) <= agents:
            entities = [entity["what"].get("reference") for entity in provenance.get("entity", [])]
            yield Written(
                f"Provenance/{provenance['id']}",
                provenance["recorded"],
                tuple(target["reference"] for target in provenance["target"] if "reference" in target),
                tuple(reference for reference in entities if reference),
                tuple(_uid(target) for target in provenance["target"] if "reference" not in target),
            )


async def mark(fhir: FhirClient, written: Written, recall: Recall, told: Callable[[Marked], None]) -> None:
    """Mark the results of one run; what nobody verified is closed in one transaction. Harmless to repeat.

    Parameters
    ----------
    fhir : the record
    written : the run
    recall : what the Provenance says; one that an earlier call left stays as it is
    told : hears what was done with each resource, after it is durable
    """
    found: list[Resource] = []
    for reference in _plain(written.targets):
        try:
            found.append(await fhir.read(reference))
        except (NotFoundError, DeletedError):
            told(Marked(reference, "gone", None))
    found += await _tasks(fhir, written)
    open_ones = [item for item in found if not is_recalled(item)]
    for item in found:
        if item not in open_ones:
            told(_marked(item, "already"))
    closing = [with_tag(closed) for closed in close_unverified(open_ones)]
    tasks = [item for item in open_ones if item["resourceType"] == "Task"]
    left = {_reference(item) for item in [*closing, *tasks]}
    verified = [item for item in open_ones if _reference(item) not in left]
    entries = [_update(item) for item in closing]
    entries += [_update({**task, "businessStatus": MODEL_RECALLED.concept()}) for task in tasks]
    if found and not await _is_stated(fhir, _reference(found[0])):
        entries.append({"resource": statement(found, recall), "request": {"method": "POST", "url": "Provenance"}})
    if entries:
        await fhir.transaction({"resourceType": "Bundle", "type": "transaction", "entry": entries})
    for item in closing:
        told(_marked(item, "closed"))
    for item in tasks:
        told(_marked(item, "marked"))
    for item in verified:
        # The content of what a person signed is not ours to write: only its label is added.
        await fhir.add_tag(_reference(item), MODEL_RECALLED.coding())
        told(_marked(item, "marked"))


def statement(resources: list[Resource], recall: Recall) -> Resource:
    """The Provenance of a recall: its targets are the resources, its reason is why."""
    synthetic = [tag for tag in resources[0].get("meta", {}).get("tag", []) if tag.get("code") == SYNTHETIC.code]
    return {
        "resourceType": "Provenance",
        **({"meta": {"tag": synthetic}} if synthetic else {}),
        "target": [{"reference": _reference(item)} for item in resources],
        "recorded": recall.recorded,
        "activity": MODEL_RECALLED.concept(),
        "reason": [{"text": recall.reason}],
        "agent": [{"who": {"display": recall.by}}],
    }


async def _is_stated(fhir: FhirClient, reference: str) -> bool:
    return any(
        coding.get("code") == MODEL_RECALLED.code
        for provenance in await fhir.search("Provenance", [("target", reference)])
        for coding in provenance.get("activity", {}).get("coding", [])
    )


async def who_saw(fhir: FhirClient, references: Iterable[str]) -> dict[str, set[str]]:
    """Who read the resources: name of the account (of the audit trail) → references."""
    seen: dict[str, set[str]] = {}
    for plain in _plain(references):
        async for event in _all(fhir, "AuditEvent", [("entity", plain), ("action", _READ_ACTION)]):
            if event.get("outcome", "0") != "0":
                continue
            for agent in event.get("agent", []):
                if agent.get("requestor"):
                    seen.setdefault(_name(agent), set()).add(plain)
    return seen


async def _tasks(fhir: FhirClient, written: Written) -> list[Resource]:
    """The Tasks that a run answered: asked about what it was made from, with what it wrote as their output."""
    wrote = set(_plain(written.targets))
    studies = [reference for reference in _plain(written.sources) if reference.startswith("ImagingStudy/")]
    if not studies:
        return []
    found = await fhir.search("Task", [("focus", ",".join(studies)), ("status", "completed")])
    return [task for task in found if wrote & {_answer(output) for output in task.get("output", [])}]


def _answer(output: Resource) -> str | None:
    reference: str | None = output.get("valueReference", {}).get("reference")
    return reference


def is_recalled(resource: Resource) -> bool:
    """Whether the resource carries the tag of a recalled model, or a Task its business status."""
    said = [*resource.get("meta", {}).get("tag", []), *resource.get("businessStatus", {}).get("coding", [])]
    return MODEL_RECALLED.code in {coding.get("code") for coding in said}


def with_tag(resource: Resource) -> Resource:
    """The resource with the tag of a recalled model."""
    meta = resource.get("meta", {})
    return {**resource, "meta": {**meta, "tag": [*meta.get("tag", []), MODEL_RECALLED.coding()]}}


def _plain(references: Iterable[str]) -> Iterable[str]:
    return (reference.split("/_history/")[0] for reference in references)


def _reference(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def _marked(resource: Resource, done: str) -> Marked:
    return Marked(_reference(resource), done, resource.get("status"))


def _uid(target: Resource) -> str:
    return str(target.get("identifier", {}).get("value", "")).removeprefix("urn:oid:")


def _update(resource: Resource) -> Resource:
    request = {"method": "PUT", "url": _reference(resource), "ifMatch": f'W/"{resource["meta"]["versionId"]}"'}
    return {"resource": resource, "request": request}


def _name(agent: Resource) -> str:
    who = agent.get("who", {})
    named = who.get("reference") or who.get("identifier", {}).get("value") or agent.get("altId")
    return str(named or "not signed in")


async def _all(fhir: FhirClient, resource_type: str, parameters: list[tuple[str, str]]) -> AsyncIterator[Resource]:
    cursor: str | None = None
    while True:
        paging = [("_count", _PAGE), *([("_cursor", cursor)] if cursor else [])]
        bundle = await fhir.page(resource_type, [*parameters, *paging])
        for entry in bundle.get("entry", []):
            yield entry["resource"]
        cursor = next_cursor(bundle)
        if cursor is None:
            return
