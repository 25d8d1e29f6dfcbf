"""What a Consent hides as ImagingStudy is hidden as pixels: on every route, at once, for the same callers. SYNTHETIC.

https://hl7.org/fhir/R4/consent.html; DICOM PS3.18 §8.2 leaves access to the server (ADR 0040). Requests as in
`test_leaks.py`, asked by a physician with scopes for every study, whom a patient's Consent names.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydicom import Dataset

from dicomweb.consents.released_output import SIGNED, ReleasedOutput
from dicomweb.instance_header import OWN_MANUFACTURER
from dicomweb.recently_read import MAX_AGE_S, RecentlyRead
from dicomweb.routes import ROUTES
from dicomweb.study_index import StudyIndex
from fhir_server.rules.ai_signoff import SIGNED_OFF
from foramen.identity.oauth.revocation_list import RevocationAwareVerifier
from foramen.identity.oauth.signing_keys import SigningKeys
from foramen.kernel.errors import ConflictError, UpstreamError
from terminology import systems
from tests.builders.dicom import series
from tests.builders.tokens import KEY, ORIGIN, bearer
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dicomweb.leak_probes import Probe
from tests.contract.dicomweb.test_leaks import CASES, Worlds, ask

WRITING = frozenset(f"{route.method} {route.path}" for route in ROUTES if route.handler in ("store", "create_workitem"))
"""What makes something new: it shows nothing."""
PROBES = {name: one for name, one in CASES.items() if not one.accept and name.rpartition(" ")[0] not in WRITING}
"""Every other route; the media types were all asked for in `test_leaks.py`."""
SCOPE = "user/ImagingStudy.cruds user/Task.cruds user/Patient.rs"
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
    """Let the record be asked again at the next request, as it is after `MAX_AGE_S`, whatever is being read now."""
    limit = gateway.service._closed_records
    limit._recent = RecentlyRead(limit._read, "dicomweb-closed-records", "try again")


@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
async def test_a_closed_study_is_as_absent(gateway: Gateway, worlds: Worlds, probe: Probe) -> None:
    nothing = await ask(gateway, probe, worlds.absent, physician())
    assert await ask(gateway, probe, worlds.foreign, physician()) == nothing, f"{probe} tells that there is something"
    if probe.of_all:
        assert nothing[0] == 403, "of the whole archive: not for anybody who sees a part of it"
        return
    if not (probe.lists and "limit=1" in probe.path):  # Whether the closed one is on that page, nobody says.
        assert await ask(gateway, probe, worlds.foreign, physician("e")) != nothing, f"{probe} shows nothing to anybody"
    own = bearer("patient/ImagingStudy.rs", fhirUser="Patient/refuses", patient="refuses", sub="p")
    if probe.open_to_patients and not probe.lists:
        assert await ask(gateway, probe, worlds.foreign, own) != nothing, f"{probe} is closed to the patient"


def test_every_route_is_asked() -> None:
    asked = {name.rsplit(" ", 1)[0] for name in PROBES}
    assert {f"{route.method} {route.path}" for route in ROUTES} - WRITING == asked


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


@dataclass
class Viewer:
    """One token that pages through a series, and how often the index was asked for it."""

    gateway: Gateway
    path: str
    token: dict[str, str]
    looked_up: int = 0

    async def pages(self) -> set[int]:
        """Statuses of a burst of frames; most of them were answered without a look at the index."""
        before = self.looked_up
        found = [(await self.gateway.http.get(self.path, headers=self.token)).status_code for _ in range(40)]
        assert set(found) != {200} or self.looked_up - before < 20, "every frame was looked up"
        return set(found)


@pytest.fixture
async def viewer(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Viewer]:
    """A patient and a physician may page through the patient's study: here the patient does."""
    dataset = await add(gateway, "paged", 7)
    own = bearer("patient/ImagingStudy.rs", fhirUser="Patient/paged", patient="paged", sub="p", jti="paging")
    instance = f"/series/{dataset.SeriesInstanceUID}/instances/{dataset.SOPInstanceUID}"
    found = Viewer(gateway, f"/studies/{dataset.StudyInstanceUID}{instance}/frames/1", own)
    read = StudyIndex._retrieve

    async def counted(*arguments: Any) -> Any:
        found.looked_up += 1
        return await read(*arguments)

    monkeypatch.setattr(StudyIndex, "_retrieve", counted)
    yield found
    await gateway.register(dataset.StudyInstanceUID)


async def test_a_consent_ends_the_paging_through_a_series(viewer: Viewer) -> None:
    viewer.token = physician()
    said = consent("paged", "paged", actor=[actor("Practitioner/d")])
    for status, shown in (("inactive", 200), ("active", 404), ("inactive", 200)):
        await viewer.gateway.record.update({**said, "status": status})
        await asyncio.sleep(MAX_AGE_S)
        assert await viewer.pages() == {shown}


async def test_a_correction_of_the_patient_ends_the_paging_through_a_series(viewer: Viewer) -> None:
    assert await viewer.pages() == {200}
    index, study = viewer.gateway.service._index, viewer.path.split("/")[2]

    async def settled() -> bool:
        """No registration is under way that would write the patient again."""
        async with viewer.gateway.service._database.connection() as connection:
            return not await connection.fetchval("SELECT count(*) FROM dicomweb.arrival")

    await viewer.gateway.until(settled)
    await index.mark(study, patient_ref="Patient/another", institution=None, state="registered", input_hash="")
    await asyncio.sleep(MAX_AGE_S)
    assert await viewer.pages() == {404}


async def test_a_revoked_token_ends_the_paging_through_a_series(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    aware = RevocationAwareVerifier(cast(SigningKeys, SimpleNamespace(key_set=lambda: KEY)), ORIGIN, ORIGIN)
    monkeypatch.setattr(viewer.gateway.service, "_verifier", aware)
    assert await viewer.pages() == {200}
    aware.set_revoked({"paging"})
    assert await viewer.pages() == {401}


async def test_what_another_process_kept_in_between_is_read_again(gateway: Gateway, worlds: Worlds) -> None:
    """The record answers that nothing changed since the tag this process has; the tables are of another one."""
    blind, uid = physician(), worlds.foreign.StudyInstanceUID
    forget(gateway)
    assert uid not in await studies(gateway, blind)
    async with gateway.service._database.connection() as connection:
        await connection.execute("DELETE FROM dicomweb.closed_record")
        await connection.execute("UPDATE dicomweb.closed_records_read SET tag = 'of another'")
    forget(gateway)
    assert uid not in await studies(gateway, blind)


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
    async def away() -> None:
        raise UpstreamError("away")

    forget(gateway)
    monkeypatch.setattr(gateway.service._closed_records._recent, "_read", away)
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
    for patient in PATIENTS:
        for number in range(2):
            await say(gateway, {**consent(patient, f"made-{patient}-{number}"), "status": "inactive"})
    forget(gateway)


async def say(gateway: Gateway, made: dict[str, Any]) -> None:
    """Write a Consent as the patient: it may be hidden from everybody else."""
    patient = made["patient"]["reference"]
    url = f"{gateway.service._settings.internal_origin}/fhir/Consent/{made['id']}"
    token = bearer("system/*.cruds", fhirUser=patient, sub="p")
    assert (await gateway.http.put(url, json=made, headers=token)).status_code in (200, 201)


@pytest.mark.parametrize("seed", range(12))
async def test_what_the_record_shows_the_gateway_shows(gateway: Gateway, four: list[str], seed: int) -> None:
    chance = random.Random(seed)
    for patient in PATIENTS:
        for number in range(2):
            made = consent(patient, f"made-{patient}-{number}", **provision(chance))
            made["status"] = chance.choice(["active", "active", "inactive"])
            made["provision"]["type"] = chance.choice(["deny", "deny", "deny", "permit"])
            await say(gateway, made)
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


# What an AI made


async def test_a_patient_sees_what_an_ai_made_once_it_is_verified(gateway: Gateway) -> None:
    """As the record shows the DiagnosticReport that names the series; a clinician sees it in any case."""
    image = await add(gateway, "patient-of-ai", 40)
    made = series(1, seed=41, patient_id=image.PatientID, series_description="Segmentation SYNTHETIC")[0]
    made.StudyInstanceUID, made.Modality, made.Manufacturer = image.StudyInstanceUID, "SEG", OWN_MANUFACTURER
    assert (await gateway.store(made)).status_code == 200
    await gateway.register(image.StudyInstanceUID)
    report = {
        "resourceType": "DiagnosticReport",
        "id": "of-ai",
        "code": {"text": "SYNTHETIC"},
        "subject": {"reference": "Patient/patient-of-ai"},
        "extension": [{"url": systems.EXTENSION_SEGMENTATION, "valueUri": f"urn:oid:{made.SeriesInstanceUID}"}],
    }
    own = bearer("patient/*.rs", fhirUser="Patient/patient-of-ai", patient="patient-of-ai", sub="p")
    path = f"/studies/{image.StudyInstanceUID}/series"
    for status in ("partial", "final", "entered-in-error", "amended", "registered"):
        await gateway.record.update({**report, "status": status})
        gateway.service._released_output._known.clear()
        released = status in SIGNED
        for token, shown in ((own, released), (physician(), True)):
            found = {item["0020000E"]["Value"][0] for item in (await gateway.http.get(path, headers=token)).json()}
            assert (made.SeriesInstanceUID in found) == shown, status
            assert image.SeriesInstanceUID in found
            answer = await gateway.http.get(f"{path}/{made.SeriesInstanceUID}/metadata", headers=token)
            assert answer.status_code == (200 if shown else 404), status
    await gateway.record.update({**report, "status": "final"})
    await asyncio.sleep(MAX_AGE_S)
    assert (await gateway.http.get(f"{path}/{made.SeriesInstanceUID}", headers=own)).status_code == 200


def test_signed_words_are_the_records() -> None:
    assert set(SIGNED) == SIGNED_OFF["DiagnosticReport"]


async def test_when_it_cannot_be_asked_what_was_released_a_patient_sees_nothing(
    gateway: Gateway, worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: ReleasedOutput, patient: str) -> None:
        raise UpstreamError("away")

    monkeypatch.setattr(ReleasedOutput, "_ask", away)
    gateway.service._released_output._known.clear()
    own = bearer("patient/ImagingStudy.rs", fhirUser="Patient/mine", patient="mine", sub="p")
    assert (await gateway.http.get("/studies", headers=own)).status_code == 503
    assert (await gateway.http.get("/studies", headers=physician("e"))).status_code == 200


# Records that are closed as their erasure was asked for


async def erase(gateway: Gateway, patient: str) -> str:
    """Ask for the erasure, and approve it as somebody else; returns what became of it."""
    base = f"{gateway.service._settings.internal_origin}/fhir/Patient/{patient}"

    async def post(path: str, who: str, **values: str) -> Any:
        named = [{"name": name, "valueString": value} for name, value in values.items()]
        token = bearer(
            "system/*.cruds foramen/admin", sub=who, client_id=f"console-{who}", fhirUser=f"Practitioner/{who}"
        )
        body = {"resourceType": "Parameters", "parameter": named}
        answer = await gateway.http.post(f"{base}/{path}", json=body, headers=token)
        assert answer.status_code == 202, answer.text
        return answer.json()["parameter"][0]["part"]

    request = next(
        item["valueString"] for item in await post("$erase", "chief", reason="by letter") if item["name"] == "id"
    )
    await post("$erase-decide", "lawyer", request=request, decision="approve", note="checked")
    token = bearer("foramen/admin", sub="chief", client_id="console")

    async def state() -> str | None:
        parts = (await gateway.http.get(f"{base}/$erase", headers=token)).json()["parameter"][0]["part"]
        found = next(
            next(iter(part[key] for key in part if key != "name")) for part in parts if part["name"] == "status"
        )
        return str(found) if found in ("erased", "restricted") else None

    return str(await gateway.until(state))


@pytest.mark.parametrize(
    ("patient", "year", "becomes"), [("kept", "2026", "restricted"), ("removed", "1970", "erased")]
)
async def test_a_restricted_record_is_closed_to_all_but_administrators(
    gateway: Gateway, patient: str, year: str, becomes: str
) -> None:
    dataset = await add(gateway, patient, 50 if becomes == "erased" else 51)
    (study,) = await gateway.imaging_studies(dataset.StudyInstanceUID)
    await gateway.record.update({**study, "started": f"{year}-03-01"})
    uid = dataset.StudyInstanceUID
    assert uid in await studies(gateway, physician())
    assert await erase(gateway, patient) == becomes
    with contextlib.suppress(ConflictError):  # Delivered once more before the gateway heard of it.
        await gateway.register(uid)
    forget(gateway)
    administrator = physician("f", scope="user/*.rs foramen/admin")
    own = bearer("patient/*.rs", fhirUser=f"Patient/{patient}", patient=patient, sub="p")
    for again in (False, True):
        for token in (physician(), own, administrator):
            sees = token is administrator and becomes == "restricted"
            assert (uid in await in_the_record(gateway, token)) == sees
            assert (uid in await studies(gateway, token)) == sees
            answer = await gateway.http.get(f"/studies/{uid}/rendered", headers=token)
            assert answer.status_code == (200 if sees else 404)
        if not again:  # That it is delivered once more does not open it.
            with contextlib.suppress(ConflictError):
                await gateway.register(uid)
