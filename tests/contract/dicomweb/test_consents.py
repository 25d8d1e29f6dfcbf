"""What a Consent hides as ImagingStudy is hidden as pixels: on every route, at once, for the same callers. SYNTHETIC.

https://hl7.org/fhir/R4/consent.html; DICOM PS3.18 §8.2 leaves access to the server (ADR 0040). Requests as in
`test_leaks.py`, asked by a physician with scopes for every study, whom a patient's Consent names.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydicom import Dataset

from dicomweb.consents.closed_records import MAX_AGE_S, ClosedRecords
from dicomweb.routes import ROUTES
from foramen.kernel.errors import UpstreamError
from tests.builders.dicom import series
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dicomweb.leak_probes import Probe
from tests.contract.dicomweb.test_leaks import CASES, Worlds, ask

PROBES = {name: probe for name, probe in CASES.items() if not probe.accept and not probe.stores}
"""Every route that answers with studies; the media types were all asked for in `test_leaks.py`."""
SCOPE = "user/ImagingStudy.cruds user/Task.cruds"
LABEL = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
PATIENTS = ("open", "closed", "half", "labelled")


@pytest.fixture(scope="module")
def institutions() -> Iterator[str]:
    """No walls; the record applies Consents."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_FHIR_CONSENT", "true")
        yield "shared"


def consent(patient: str, logical_id: str, **provision: Any) -> dict[str, Any]:
    scope = {"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}
    return {
        "resourceType": "Consent",
        "id": logical_id,
        "status": "active",
        "scope": {"coding": [scope]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": f"Patient/{patient}"},
        "policyRule": {"text": "SYNTHETIC"},
        "provision": {"type": "deny", **provision},
    }


def actor(reference: str) -> dict[str, Any]:
    role = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "IRCP"}]}
    return {"role": role, "reference": {"reference": reference}}


def physician(name: str = "d", scope: str = SCOPE, **claims: object) -> dict[str, str]:
    return bearer(scope, fhirUser=f"Practitioner/{name}", sub=name, **claims)


async def add(gateway: Gateway, patient: str, seed: int) -> Dataset:
    dataset = series(1, seed=seed, patient_id=f"SYN-8{seed}")[0]
    await gateway.add_patient(dataset.PatientID, patient)
    assert (await gateway.store(dataset)).status_code == 200
    await gateway.register(dataset.StudyInstanceUID)
    return dataset


@pytest.fixture(scope="module")
async def worlds(gateway: Gateway) -> Worlds:
    """The study of a patient who refuses nothing, one that is closed to `d`, and one that is not there."""
    mine, foreign = [await add(gateway, name, seed) for name, seed in (("mine", 1), ("refuses", 2))]
    for dataset, patient in ((mine, "mine"), (foreign, "refuses")):
        await gateway.add_workitem(dataset, patient)
    await gateway.record.update(consent("refuses", "co", actor=[actor("Practitioner/d")]))
    forget(gateway)
    return Worlds(mine, foreign, series(1, seed=3, patient_id="SYN-83")[0])


def forget(gateway: Gateway) -> None:
    """Let the record be asked again at the next request, as it is after `MAX_AGE_S`."""
    gateway.service._closed_records._read_at = -MAX_AGE_S


@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
async def test_a_closed_study_is_as_absent(gateway: Gateway, worlds: Worlds, probe: Probe) -> None:
    nothing = await ask(gateway, probe, worlds.absent, physician())
    assert await ask(gateway, probe, worlds.foreign, physician()) == nothing, f"{probe} tells that there is something"
    assert await ask(gateway, probe, worlds.foreign, physician("e")) != nothing, f"{probe} shows nothing to anybody"
    own = bearer("patient/ImagingStudy.rs", fhirUser="Patient/refuses", patient="refuses", sub="p")
    if probe.open_to_patients and not probe.lists:
        assert await ask(gateway, probe, worlds.foreign, own) != nothing, f"{probe} is closed to the patient"


def test_every_route_is_asked() -> None:
    asked = {name.rsplit(" ", 1)[0] for name in PROBES}
    assert {f"{route.method} {route.path}" for route in ROUTES if route.handler != "store"} == asked


async def studies(gateway: Gateway, token: dict[str, str]) -> set[str]:
    found = await gateway.http.get("/studies", headers=token)
    assert found.status_code == 200, found.text
    return {item["0020000D"]["Value"][0] for item in found.json()}


async def in_the_record(gateway: Gateway, token: dict[str, str]) -> set[str]:
    url = f"{gateway.service._settings.internal_origin}/fhir/ImagingStudy"
    found = await gateway.http.get(url, params={"_count": "500"}, headers=token)
    assert found.status_code == 200, found.text
    entries = found.json().get("entry", ())
    return {entry["resource"]["identifier"][0]["value"].removeprefix("urn:oid:") for entry in entries}


async def test_totals_and_pages_leave_it_out(gateway: Gateway, worlds: Worlds) -> None:
    sees, blind = physician("e"), physician()
    answers = [
        (await gateway.http.get("/studies?limit=1", headers=token | {"Prefer": "count=exact"})).headers["x-total-count"]
        for token in (sees, blind)
    ]
    assert int(answers[0]) == int(answers[1]) + 1
    uid = worlds.foreign.StudyInstanceUID
    assert uid in await studies(gateway, sees)
    assert uid not in await studies(gateway, blind)


async def test_a_change_counts_within_a_second(gateway: Gateway) -> None:
    dataset = await add(gateway, "changing", 4)
    path = f"/studies/{dataset.StudyInstanceUID}"
    said = consent("changing", "changing", actor=[actor("Practitioner/d")])
    for status in ("active", "inactive", "active", "rejected"):
        await gateway.record.update({**said, "status": status})
        await asyncio.sleep(MAX_AGE_S)
        for name in ("d", "e"):
            closed = status == "active" and name == "d"
            for suffix in ("", "/metadata", "/rendered"):
                answer = await gateway.http.get(path + suffix, headers=physician(name))
                assert answer.status_code == (404 if closed else 200), suffix
            assert (dataset.StudyInstanceUID in await studies(gateway, physician(name))) != closed


async def test_emergency_access_opens_what_it_opens_in_the_record(gateway: Gateway, worlds: Worlds) -> None:
    for patient, opens in (("refuses", True), ("mine", False)):
        token = physician(break_glass={"id": "case", "patient": patient, "until": 4_000_000_000})
        assert (worlds.foreign.StudyInstanceUID in await studies(gateway, token)) == opens
        assert (worlds.foreign.StudyInstanceUID in await in_the_record(gateway, token)) == opens


async def test_a_record_closed_to_everybody_stays_closed_when_images_arrive(gateway: Gateway) -> None:
    """Closed to the gateway's own services too, which have to know all the same whose the images are."""
    first = await add(gateway, "everybody", 5)
    await gateway.record.update(consent("everybody", "everybody"))
    forget(gateway)
    late = series(1, seed=6, patient_id=first.PatientID)[0]
    await gateway.store(late)
    for dataset in (first, late):
        await gateway.register(dataset.StudyInstanceUID)
        assert dataset.StudyInstanceUID not in await studies(gateway, physician())
        own = bearer("patient/ImagingStudy.rs", fhirUser="Patient/everybody", patient="everybody", sub="p")
        assert dataset.StudyInstanceUID in await studies(gateway, own)
        assert dataset.StudyInstanceUID in await in_the_record(gateway, own)


async def test_when_the_record_cannot_be_asked_nothing_is_shown(
    gateway: Gateway, worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: ClosedRecords) -> None:
        raise UpstreamError("away")

    monkeypatch.setattr(ClosedRecords, "_read", away)
    forget(gateway)
    uid = worlds.mine.StudyInstanceUID
    for path in ("/studies", f"/studies/{uid}", f"/studies/{uid}/metadata", f"/studies/{uid}/rendered"):
        assert (await gateway.http.get(path, headers=physician("e"))).status_code == 503


# What the record shows of ImagingStudy, the gateway shows: for Consents made up at random

ACTORS = ("Practitioner/d", "Practitioner/e", "Organization/a", "Device/test-client", "Patient/closed", "Group/g")
CLASSES = ("ImagingStudy", "Observation", "Patient")
CALLERS: dict[str, dict[str, str]] = {
    "physician": physician(),
    "colleague": physician("e", institution="a"),
    "emergency": physician(break_glass={"id": "case", "patient": "closed", "until": 4_000_000_000}),
    "launched": physician(scope="patient/ImagingStudy.rs", patient="closed"),
    "patient": bearer("patient/ImagingStudy.rs", fhirUser="Patient/closed", patient="closed", sub="p"),
    "relative": bearer("patient/ImagingStudy.rs", fhirUser="RelatedPerson/r", patient="half", sub="r"),
    "service": bearer("system/*.rs", sub="modality", client_id="modality"),
    "administrator": physician("f", scope="user/*.rs foramen/admin"),
}


def provision(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if chance.random() < 0.6:
        found["actor"] = [actor(name) for name in chance.sample(ACTORS, chance.randint(1, 2))]
    if chance.random() < 0.3:
        names = chance.sample(CLASSES, chance.randint(1, 2))
        found["class"] = [{"system": "http://hl7.org/fhir/resource-types", "code": name} for name in names]
    if chance.random() < 0.25:
        found["securityLabel"] = [LABEL]
    if chance.random() < 0.3:
        found["period"] = chance.choice(
            [{"start": "2020-01-01"}, {"start": "2100-01-01"}, {"end": "2020-01-01"}, {"end": "2100-01-01"}]
        )
    if depth == 0 and chance.random() < 0.5:
        inner = [{"type": chance.choice(["permit", "deny"]), **provision(chance, 1)} for _ in range(2)]
        found["provision"] = inner
    return found


@pytest.fixture(scope="module")
async def four(gateway: Gateway) -> AsyncIterator[list[str]]:
    found = [(await add(gateway, name, 20 + number)).StudyInstanceUID for number, name in enumerate(PATIENTS)]
    for uid in (found[2], found[3]):
        (study,) = await gateway.imaging_studies(uid)
        await gateway.record.update({**study, "meta": {"security": [LABEL]}})
    yield found
    for number in range(6):
        await gateway.record.update({**consent("open", f"made-{number}"), "status": "inactive"})
    forget(gateway)


@pytest.mark.parametrize("seed", range(12))
async def test_what_the_record_shows_the_gateway_shows(gateway: Gateway, four: list[str], seed: int) -> None:
    chance = random.Random(seed)
    for number in range(6):
        kind = chance.choice(["deny", "deny", "deny", "permit"])
        made = consent(chance.choice(PATIENTS), f"made-{number}", **provision(chance)) | {
            "status": chance.choice(["active", "active", "active", "inactive"])
        }
        made["provision"]["type"] = kind
        await gateway.record.update(made)
    forget(gateway)
    for name, token in CALLERS.items():
        shown, known = await studies(gateway, token), await in_the_record(gateway, token)
        assert shown & set(four) == known & set(four), name
        for uid in four:
            answer = await gateway.http.get(f"/studies/{uid}/metadata", headers=token)
            assert answer.status_code == (200 if uid in known else 404), name


def test_the_made_up_consents_differ() -> None:
    """Some close, some do not: else the test above would hold of anything."""
    made = [provision(random.Random(seed)) for seed in range(40)]
    assert {"actor", "class", "securityLabel", "period", "provision"} == {key for one in made for key in one}
