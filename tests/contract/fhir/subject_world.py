"""One SYNTHETIC person whose names and numbers can be found again wherever they lie: tables, files, answers."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from tests.contract.fhir.api import EVERYTHING, Api, observation

ADMIN = f"{EVERYTHING} foramen/admin"
FAMILY, GIVEN, NUMBER, PHONE = "Zyxwvutmark", "Qqrrssmark", "SYNMARK99887766", "13900077665"
HIDDEN = "hiddenmark-in-free-text"
OTHER = "Syntheticneighbour"
MARKS = (FAMILY, GIVEN, NUMBER, PHONE, HIDDEN)


def admin(api: Api, name: str) -> Api:
    """An administrator's account."""
    return api.as_(ADMIN, sub=name, client_id=f"console-{name}")


def person(logical_id: str, family: str = FAMILY) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "id": logical_id,
        "identifier": [{"system": "urn:synthetic", "value": NUMBER}],
        "name": [{"family": family, "given": [GIVEN]}],
        "telecom": [{"system": "phone", "value": PHONE}],
        "birthDate": "1950-01-01",
    }


def encounter(patient: str, year: int, code: str = "AMB") -> dict[str, Any]:
    return {
        "resourceType": "Encounter",
        "id": f"{patient}-visit",
        "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": code},
        "subject": {"reference": f"Patient/{patient}", "display": f"{FAMILY} {GIVEN}"},
        "period": {"start": f"{year}-03-01", "end": f"{year}-03-02"},
    }


def binary(logical_id: str, context: str | None = None) -> dict[str, Any]:
    found = {
        "resourceType": "Binary",
        "id": logical_id,
        "contentType": "text/plain",
        "data": base64.b64encode(f"SYNTHETIC {HIDDEN}".encode()).decode(),
    }
    return {**found, "securityContext": {"reference": context}} if context else found


async def record(api: Api, p: str, year: int = 1970, **visit: Any) -> None:
    """Put a record with everything that can hide a name; the neighbour's stands beside it."""
    await api.put_ok({"resourceType": "Patient", "id": f"{p}-other", "name": [{"family": OTHER}]})
    for family in (FAMILY, FAMILY + "old", FAMILY):  # Earlier versions.
        await api.put_ok(person(p, family))
    date = f"{year}-03-01T08:00:00Z"
    for text in (HIDDEN, HIDDEN + " again"):
        await api.put_ok(
            {
                **observation(f"Patient/{p}", date=date),
                "id": f"{p}-o",
                "note": [{"text": text}],
                "valueString": "SYNTHETIC",
            }
        )
    await api.put_ok({**observation(f"Patient/{p}", date=date), "id": f"{p}-gone", "note": [{"text": HIDDEN}]})
    assert (await api.delete(f"/fhir/Observation/{p}-gone")).status_code == 204
    await api.put_ok({**observation(f"Patient/{p}", date=date), "id": f"{p}-moved", "note": [{"text": HIDDEN}]})
    await api.put_ok({**observation(f"Patient/{p}-other", date=date), "id": f"{p}-moved", "valueString": "SYNTHETIC"})
    await api.put_ok(encounter(p, year, **visit))
    await api.put_ok(binary(f"{p}-b1", f"Patient/{p}"))
    await api.put_ok(binary(f"{p}-b2"))
    await api.put_ok(binary(f"{p}-b3", f"Observation/{p}-o"))
    await api.put_ok({**binary(f"{p}-b4"), "data": base64.b64encode(b"SYNTHETIC leaflet").decode()})
    for own, names in ((p, ("b2", "b4")), (f"{p}-other", ("b4",))):
        await api.put_ok(
            {
                "resourceType": "DocumentReference",
                "id": f"{own}-doc",
                "status": "current",
                "date": date,
                "subject": {"reference": f"Patient/{own}"},
                "content": [{"attachment": {"contentType": "text/plain", "url": f"Binary/{p}-{n}"}} for n in names],
            }
        )
    await api.put_ok(
        {
            "resourceType": "ImagingStudy",
            "id": f"{p}-study",
            "status": "available",
            "subject": {"reference": f"Patient/{p}"},
            "started": date,
            "modality": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "MR"}],
            "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.276.0.7230010.3.99.1"}],
        }
    )
    await api.put_ok(
        {
            "resourceType": "RelatedPerson",
            "id": f"{p}-rel",
            "patient": {"reference": f"Patient/{p}"},
            "name": [{"family": FAMILY, "given": ["Relative"]}],
        }
    )
    display = {"reference": f"Patient/{p}", "display": f"{GIVEN} {FAMILY}"}
    for name in (p, p):  # Two versions that name the person.
        await api.put_ok(
            {
                "resourceType": "Group",
                "id": f"{p}-group",
                "type": "person",
                "actual": True,
                "name": f"SYNTHETIC {name}",
                "member": [{"entity": display}, {"entity": {"reference": f"Patient/{p}-other"}}],
            }
        )
    await api.put_ok(
        {
            "resourceType": "Appointment",
            "id": f"{p}-app",
            "status": "booked",
            "start": date,
            "end": date,
            "participant": [
                {"actor": display, "status": "accepted"},
                {"actor": {"reference": f"Patient/{p}-other"}, "status": "accepted"},
            ],
        }
    )
    await api.put_ok(
        {
            **observation(f"Patient/{p}-other", date=date),
            "id": f"{p}-mention",
            "focus": [display],
            "valueQuantity": {"value": 1.50},
        }
    )


def parameters(**values: Any) -> dict[str, Any]:
    kinds = {bool: "valueBoolean", str: "valueString"}
    parts = [{"name": name, kinds[type(value)]: value} for name, value in values.items()]
    return {"resourceType": "Parameters", "parameter": parts}


def values(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Parts of a parameter by name; of several of a name the last."""
    return {part["name"]: next((v for k, v in part.items() if k != "name"), None) for part in parts}


async def asked(api: Api, p: str, reason: str = "the person asked for it, letter 7") -> str:
    response = await api.post(f"/fhir/Patient/{p}/$erase", parameters(reason=reason))
    assert response.status_code == 202, response.text
    found = values(response.json()["parameter"][0]["part"])
    assert found["status"] == "requested"
    return str(found["id"])


async def approved(api: Api, p: str, request: str) -> httpx.Response:
    body = parameters(request=request, decision="approve", note="checked with the legal office")
    return await api.post(f"/fhir/Patient/{p}/$erase-decide", body)


async def finished(api: Api, p: str, request: str) -> dict[str, Any]:
    for _ in range(600):
        response = await api.get(f"/fhir/Patient/{p}/$erase")
        assert response.status_code == 200, response.text
        for item in response.json().get("parameter", []):
            found = values(item["part"])
            if found["id"] == request and found["status"] != "approved":
                return found
            assert not found.get("progress", "").startswith("failed"), found
        await asyncio.sleep(0.1)
    raise AssertionError("the erasure does not end")


async def traces(database_url: str, folder: Path, marks: tuple[str, ...] = MARKS) -> dict[str, str]:
    """Every table of the schema and every file that holds one of the marks: where → which. Base64 is looked into."""
    needles = {mark: [mark.casefold(), *_in_base64(mark)] for mark in marks}
    connection = await asyncpg.connect(database_url)
    found: dict[str, str] = {}
    try:
        tables = await connection.fetch(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'fhir' AND table_type = 'BASE TABLE'"
        )
        assert len(tables) > 15
        for (table,) in tables:
            for row in await connection.fetch(f'SELECT * FROM fhir."{table}"'):  # noqa: S608
                for column, value in row.items():
                    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
                    for mark, shapes in needles.items():
                        if any(shape in text or shape in text.casefold() for shape in shapes):
                            found[f"{table}.{column} {row.get('type', '')}/{row.get('id', '')}"] = mark
    finally:
        await connection.close()
    return {**found, **_in_files(folder, needles)}


def _in_files(folder: Path, needles: dict[str, list[str]]) -> dict[str, str]:
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_bytes().decode("utf-8", "replace")
            for mark, shapes in needles.items():
                if any(shape in text or shape in text.casefold() for shape in shapes):
                    found[str(path)] = mark
    return found


def _in_base64(mark: str) -> list[str]:
    """What a text looks like inside base64, at each of the three places it may begin; ends that run over are cut."""
    found = []
    for offset in range(3):
        encoded = base64.b64encode(b"\x00" * offset + mark.encode()).decode().rstrip("=")
        found.append(encoded[(offset * 8 + 5) // 6 : -2])
    return found
