"""Leak probes of the rights of a person: copies, erasure, legal holds. Used by `leak_probes.py`."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from tests.contract.fhir.api import Api
from tests.contract.fhir.leak_world import Probe, World, parameters

_LATER = {"prefer": "respond-async"}
_NONE: dict[str, Any] = {"resourceType": "Parameters"}
_REASON = parameters(reason_valueString="asked for by letter")
_HOLD = parameters(reason_valueString="a case", basis_valueString="an article")
_STUDY = "ImagingStudy/{t}"


async def copy(everyone: Api, owner: Api, world: World) -> None:
    """`{job}` and `{file}`: a copy that is ready; in the world without an owner it was thrown away."""
    if world.owner is None:
        world.more |= {"job": secrets.token_hex(18), "file": secrets.token_hex(30)}
        return
    path = f"/fhir/Patient/{world.name}/$subject-export"
    started = await everyone.post(path, _NONE, **_LATER)
    assert started.status_code == 202, started.text
    url = started.headers["content-location"]
    for _ in range(400):
        found = await everyone.get(url)
        if found.status_code == 200:
            world.more["job"] = url.rpartition("/")[2]
            world.more["file"] = found.json()["output"][0]["url"].rpartition("/")[2]
            return
        await asyncio.sleep(0.11)
    raise AssertionError("the copy does not end")


async def request(everyone: Api, owner: Api, world: World) -> None:
    """`{request}`: somebody asked for the erasure of the record."""
    world.more["request"] = "00000000-0000-7000-8000-" + secrets.token_hex(6)
    if world.owner is not None:
        chief = everyone.as_("foramen/admin", sub="chief", client_id="console")
        answer = await chief.post(f"/fhir/Patient/{world.name}/$erase", _REASON)
        assert answer.status_code == 202, answer.text
        world.more["request"] = answer.json()["parameter"][0]["part"][0]["valueString"]


async def hold(everyone: Api, owner: Api, world: World) -> None:
    """`{hold}`: a hold on the record."""
    world.more["hold"] = "00000000-0000-7000-8000-" + secrets.token_hex(6)
    if world.owner is not None:
        placed = await everyone.post(f"/fhir/Patient/{world.name}/$legal-hold", _HOLD)
        assert placed.status_code == 200, placed.text
        world.more["hold"] = placed.json()["parameter"][0]["part"][1]["valueString"]


async def study_hold(everyone: Api, owner: Api, world: World) -> None:
    """`{hold}`: a hold on a study of the record."""
    world.more["hold"] = "00000000-0000-7000-8000-" + secrets.token_hex(6)
    if world.owner is not None:
        await study(everyone, owner, world)
        placed = await everyone.post(f"/fhir/ImagingStudy/{world.name}/$legal-hold", _HOLD)
        assert placed.status_code == 200, placed.text
        world.more["hold"] = placed.json()["parameter"][0]["part"][1]["valueString"]


async def study(everyone: Api, owner: Api, world: World) -> None:
    """A study of the record."""
    if world.owner is not None:
        data = {"resourceType": "ImagingStudy", "id": world.name, "status": "available"}
        await everyone.put_ok({**data, "subject": {"reference": f"Patient/{world.owner}"}})


def _admin(method: str, path: str, body: Any = None, **more: Any) -> tuple[Probe, ...]:
    return (Probe(method, path, body, owner=False, **more),)


_DECIDE = parameters(request_valueString="{request}", decision_valueCode="refuse", note_valueString="no")
_RELEASE = parameters(hold_valueString="{hold}", reason_valueString="over")

PROBES: dict[str, tuple[Probe, ...]] = {
    "POST Patient/{id}/$subject-export": (Probe("POST", "Patient/{t}/$subject-export", _NONE, _LATER, in_person=True),),
    "GET $subject-export-status/{id}": _admin("GET", "$subject-export-status/{job}", setup=copy),
    "DELETE $subject-export-status/{id}": _admin("DELETE", "$subject-export-status/{job}", setup=copy),
    "GET $subject-file/{id}": _admin("GET", "$subject-file/{file}", setup=copy),
    "GET Patient/{id}/$erase-preview": _admin("GET", "Patient/{t}/$erase-preview"),
    "POST Patient/{id}/$erase-preview": _admin("POST", "Patient/{t}/$erase-preview", _NONE),
    "POST Patient/{id}/$erase": _admin("POST", "Patient/{t}/$erase", _REASON),
    "GET Patient/{id}/$erase": _admin("GET", "Patient/{t}/$erase", setup=request),
    "POST Patient/{id}/$erase-decide": _admin("POST", "Patient/{t}/$erase-decide", _DECIDE, setup=request),
    "POST Patient/{id}/$legal-hold": _admin("POST", "Patient/{t}/$legal-hold", _HOLD),
    "GET Patient/{id}/$legal-hold": _admin("GET", "Patient/{t}/$legal-hold", setup=hold),
    "POST Patient/{id}/$legal-hold-release": _admin("POST", "Patient/{t}/$legal-hold-release", _RELEASE, setup=hold),
    "POST ImagingStudy/{id}/$legal-hold": _admin("POST", f"{_STUDY}/$legal-hold", _HOLD, setup=study),
    "GET ImagingStudy/{id}/$legal-hold": _admin("GET", f"{_STUDY}/$legal-hold", setup=study_hold),
    "POST ImagingStudy/{id}/$legal-hold-release": _admin(
        "POST", f"{_STUDY}/$legal-hold-release", _RELEASE, setup=study_hold
    ),
}
