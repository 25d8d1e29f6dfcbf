"""Stage 3: how urgent a study is when it arrives: what its order in the record says, else what its images say.

https://hl7.org/fhir/R4/servicerequest-definitions.html#ServiceRequest.priority; DICOM PS3.3 C.4.11, Requested Procedure
Priority (0040,1003), which modalities copy from the worklist into their images or into (0040,0275). ADR 0056.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dicomweb.instance_header import tag_of, text_values
from dicomweb.study_index import IndexedStudy
from foramen.kernel.fhir_client import FhirClient
from terminology import systems

ROUTINE = "routine"
PRIORITIES = (ROUTINE, "urgent", "asap", "stat")
"""https://hl7.org/fhir/R4/valueset-request-priority.html, from the least."""
_OF_IMAGES = {"STAT": "stat", "HIGH": "urgent"}
_COUNTED = frozenset(("active", "completed"))
"""States of an order that still says something: not drafts, revoked ones, or those entered in error."""
_PRIORITY, _REQUESTS = tag_of("RequestedProcedurePriority"), tag_of("RequestAttributesSequence")


@dataclass(frozen=True, slots=True)
class Urgency:
    """How urgent a study is.

    Parameters
    ----------
    priority : one of `PRIORITIES`; None where nothing says anything
    order : ``ServiceRequest/id`` that says so; None where the images do
    """

    priority: str | None = None
    order: str | None = None


NOT_SAID = Urgency()


async def urgency_of(fhir: FhirClient, study: IndexedStudy, patient: str | None) -> Urgency:
    """Ask the patient's orders in the record, then the images.

    Parameters
    ----------
    fhir : the record
    study : as the index has it
    patient : ``Patient/id`` that it belongs to; None: nobody was found, and no order is looked for

    Raises
    ------
    InteropError
        The record could not be asked: that is not "no order".
    """
    if patient is not None:
        names = [
            f"urn:oid:{study.study_instance_uid}",
            *text_values(study.attributes.get(tag_of("AccessionNumber"), {})),
        ]
        value = ",".join(_escaped(name) for name in names if name)
        found = await fhir.search("ServiceRequest", [("identifier", value), ("patient", patient), ("_count", "20")])
        told = of_orders(found, study)
        if told is not None:
            return told
    return Urgency(of_images(study))


def of_orders(orders: Iterable[dict[str, Any]], study: IndexedStudy) -> Urgency | None:
    """Return what the orders of a study say, the most urgent one of several; None: none of them is of this study."""
    accession = _accession(study)
    own = [
        Urgency(_known(order.get("priority")) or ROUTINE, f"ServiceRequest/{order['id']}")
        for order in orders
        if order.get("resourceType") == "ServiceRequest"
        and order.get("status") in _COUNTED
        and any(_names(one, study.study_instance_uid, accession) for one in order.get("identifier", ()))
    ]
    return max(own, key=lambda one: PRIORITIES.index(one.priority or ROUTINE), default=None)


def of_images(study: IndexedStudy) -> str | None:
    """Return the most urgent that a study's images say; None: nothing, or a word that is not expedited."""
    return most_urgent(_OF_IMAGES.get(word.strip().upper()) for word in _words(study))


def most_urgent(priorities: Iterable[str | None]) -> str | None:
    """Return the most urgent of some priorities; None where there is none."""
    known = [one for one in map(_known, priorities) if one is not None]
    return max(known, key=PRIORITIES.index, default=None)


def _accession(study: IndexedStudy) -> str:
    return next(iter(text_values(study.attributes.get(tag_of("AccessionNumber"), {}))), "").strip()


def _words(study: IndexedStudy) -> Iterator[str]:
    levels = [study.attributes, *(series.attributes for series in study.series if not series.own_output)]
    for level in levels:
        yield from text_values(level.get(_PRIORITY, {}))
        for item in level.get(_REQUESTS, {}).get("Value") or ():
            if isinstance(item, dict):
                yield from text_values(item.get(_PRIORITY, {}))


def _names(identifier: dict[str, Any], study_instance_uid: str, accession: str) -> bool:
    """Whether an identifier of an order names the study: by its UID, or as the accession number of its images."""
    value = str(identifier.get("value", ""))
    if identifier.get("system") == systems.DICOM_UID:
        return value == f"urn:oid:{study_instance_uid}"
    is_accession = any(one.get("code") == "ACSN" for one in identifier.get("type", {}).get("coding", ()))
    return is_accession and accession != "" and value == accession


def _known(priority: Any) -> str | None:
    return priority if priority in PRIORITIES else None


def _escaped(value: str) -> str:
    return value.translate({ord(mark): f"\\{mark}" for mark in "\\|,$"})
