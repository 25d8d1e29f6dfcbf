"""`ImagingStudy/$closed-records`: whose studies are closed, and to whom, for the gateways that hand out the pixels.

Our own operation (ADR 0040); docs/api/closed-records.md. What the record decides of an ImagingStudy by Consents and
restrictions is told as rules, so that a gateway decides the same inside its own queries. It is for our own services
alone (scope `foramen/gateway`): it names records that are closed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson
from starlette.responses import Response

from fhir_server.access.consent import Denial, Limits, label_hashes
from fhir_server.interactions.responses import MEDIA_TYPE
from fhir_server.operations.parameters import parameters_of
from fhir_server.route import Route
from fhir_server.search.dates import BEGINNING, END
from fhir_server.search.hashing import hash64
from fhir_server.search.parameters import patient_base
from fhir_server.server import Call
from fhir_server.store import erasures
from fhir_server.store.erasures import Closed
from fhir_server.store.labelled_studies import Labelled, labelled_studies
from foramen.kernel.access_context import GATEWAY
from foramen.kernel.errors import ForbiddenError
from terminology import systems

_TYPE = "ImagingStudy"
_Part = dict[str, Any]


async def closed_records(call: Call) -> Response:
    """Return the rules in force, or 304 when they are those that the caller has."""
    if not call.access.context.has_scope(GATEWAY):
        raise ForbiddenError("Only the gateways of this installation may ask this")
    (await parameters_of(call)).check_known(())
    consents = call.server.consents
    denials = [] if consents is None else await consents.denials()
    async with call.server.connections.lend() as connection:
        closed = await erasures.closed(connection)  # Not what this process remembers: it counts within a second.
        found = await _labelled(connection, denials)
    body, tag = _answer(denials, closed, found)
    if call.request.headers.get("if-none-match") == tag:
        call.audited = True  # It told nothing that the answer before, which was audited, did not tell.
        return Response(status_code=304, headers={"ETag": tag})
    return Response(body, headers={"ETag": tag, "Cache-Control": "no-store"}, media_type=MEDIA_TYPE)


class _Answered(NamedTuple):
    denials: list[Denial]
    beside: tuple[list[Closed], list[Labelled]]
    body: bytes
    tag: str


_last: list[_Answered] = []
"""The answer before: gateways ask each second, and ten thousand rules take 0.1 s to write."""


def _answer(denials: list[Denial], closed: list[Closed], found: list[Labelled]) -> tuple[bytes, str]:
    """Return the body and its tag. A list of denials is never changed: a Consent that changes makes another."""
    if _last and _last[0].denials is denials and _last[0].beside == (closed, found):
        return _last[0].body, _last[0].tag
    parts = [_denial(denial, found) for denial in denials if _is_of_studies(denial)]
    parts += [_part("restricted", _patient(record.patient), _code("state", record.state)) for record in closed]
    body = orjson.dumps({"resourceType": "Parameters", **({"parameter": sorted(parts, key=str)} if parts else {})})
    tag = f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'
    _last[:] = [_Answered(denials, (closed, found), body, tag)]
    return body, tag


def _is_of_studies(denial: Denial) -> bool:
    return not denial.limits.types or _TYPE in denial.limits.types


def _lifts(permit: Limits) -> bool:
    return not permit.labels and (not permit.types or _TYPE in permit.types)


async def _labelled(connection: Any, denials: Iterable[Denial]) -> list[Labelled]:
    """Return the studies at which denials that are limited to labels look."""
    limited = [denial for denial in denials if denial.limits.labels and _is_of_studies(denial)]
    patients = {_posting(denial) for denial in limited}
    labels = {item for denial in limited for item in label_hashes(_TYPE, denial.limits.labels)}
    return await labelled_studies(connection, sorted(patients), sorted(labels)) if limited else []


def _posting(denial: Denial) -> int:
    return patient_base(_TYPE) ^ hash64(denial.patient)


def _denial(denial: Denial, found: Iterable[Labelled]) -> _Part:
    parts = [_reference(denial.patient), *_limits(denial.limits)]
    parts += [_part("permit", *_limits(permit)) for permit in denial.permits if _lifts(permit)]
    if denial.limits.labels:
        patient, labels = _posting(denial), frozenset(label_hashes(_TYPE, denial.limits.labels))
        hidden = (one.data for one in found if patient in one.patients and not labels.isdisjoint(one.labels))
        uids = sorted({uid for data in hidden for uid in _uids(data)})
        parts += [{"name": "limited", "valueBoolean": True}, *({"name": "study", "valueUri": uid} for uid in uids)]
    return _part("denial", *parts)


def _limits(limits: Limits) -> list[_Part]:
    """Return whom a provision names, and when it counts: microseconds since 1970."""
    parts: list[_Part] = [{"name": "actor", "valueUri": actor} for actor in sorted(limits.actors)]
    if limits.begin != BEGINNING:
        parts.append({"name": "begin", "valueDecimal": int(limits.begin)})
    if limits.end != END:
        parts.append({"name": "end", "valueDecimal": int(limits.end)})
    return parts


def _uids(study: dict[str, Any]) -> list[str]:
    named = (item for item in study.get("identifier") or () if item.get("system") == systems.DICOM_UID)
    return [str(item["value"]) for item in named if item.get("value")]


def _part(name: str, *parts: _Part) -> _Part:
    return {"name": name, "part": list(parts)}


def _patient(logical_id: str) -> _Part:
    return _reference(f"Patient/{logical_id}")


def _reference(reference: str) -> _Part:
    return {"name": "patient", "valueReference": {"reference": reference}}


def _code(name: str, code: str) -> _Part:
    return {"name": name, "valueCode": code}


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        f"{_TYPE}/$closed-records",
        closed_records,
        "",
        "operation",
        definition="https://foramen.example/fhir/OperationDefinition/ImagingStudy-closed-records",
        shows_audit=False,  # asked for every second while images are: events then wait for a quiet moment
    ),
)
