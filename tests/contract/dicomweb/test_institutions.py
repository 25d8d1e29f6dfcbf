"""Where institutions divide the record, another institution's studies are as absent: on every route. All SYNTHETIC.

Requests as in `test_leaks.py`, asked by a physician of institution A with scopes for every study (ADR 0030).
"""

from __future__ import annotations

import asyncio

import pytest

from dicomweb.institutions import organization_of
from dicomweb.recently_read import MAX_AGE_S
from dicomweb.routes import ROUTES
from foramen.kernel.errors import UpstreamError
from tests.builders.dicom import series
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dicomweb.leak_probes import Probe
from tests.contract.dicomweb.test_leaks import CASES, Worlds, ask

PROBES = {name: probe for name, probe in CASES.items() if not probe.accept}
"""Every route; the media types were all asked for in `test_leaks.py`."""
SCOPE = "user/ImagingStudy.cruds user/Task.cruds user/Patient.rs"


@pytest.fixture(scope="module")
def institutions() -> str:
    return "separate"


@pytest.fixture(scope="module")
async def worlds(gateway: Gateway) -> Worlds:
    found = [series(1, seed=seed, patient_id=f"SYN-9{seed}")[0] for seed in (71, 72, 73)]
    for dataset, identity in zip(found[:2], ("mine", "other"), strict=True):
        await gateway.add_patient(dataset.PatientID, identity, institution="a" if identity == "mine" else "b")
        assert (await gateway.store(dataset, **SERVICE)).status_code == 200
        await gateway.register(dataset.StudyInstanceUID)
        await gateway.add_workitem(dataset, identity)
    return Worlds(*found)


SERVICE = {"scope": "system/ImagingStudy.crs system/Task.u", "claims": {"sub": "modality", "client_id": "modality"}}


def physician(institution: str | None, **claims: object) -> dict[str, str]:
    named = {} if institution is None else {"institution": institution}
    return bearer(SCOPE, fhirUser="Practitioner/d", sub="d", **named, **claims)


@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
async def test_another_institutions_study_is_as_absent(gateway: Gateway, worlds: Worlds, probe: Probe) -> None:
    for token in (physician("a"), physician(None)):
        nothing = await ask(gateway, probe, worlds.absent, token)
        assert await ask(gateway, probe, worlds.foreign, token) == nothing, f"{probe} tells that there is something"
    own = await ask(gateway, probe, worlds.mine, physician("a"))
    if probe.stores or probe.of_all:
        assert own[0] == 403
    elif not probe.lists:
        assert own != await ask(gateway, probe, worlds.absent, physician("a")), f"{probe} is closed to the institution"
    elif "offset" not in probe.path:  # A's one study is on the first page.
        assert own != await ask(gateway, probe, worlds.mine, physician("c"))


def test_every_route_is_asked() -> None:
    assert {name.rsplit(" ", 1)[0] for name in PROBES} == {f"{route.method} {route.path}" for route in ROUTES}


async def studies(gateway: Gateway, token: dict[str, str]) -> set[str]:
    found = (await gateway.http.get("/studies", headers=token)).json()
    return {item["0020000D"]["Value"][0] for item in found}


async def test_who_is_not_bounded_sees_all(gateway: Gateway, worlds: Worlds) -> None:
    both = {worlds.mine.StudyInstanceUID, worlds.foreign.StudyInstanceUID}
    service = bearer("system/*.cruds", sub="modality", client_id="modality")
    assert both <= await studies(gateway, service)
    assert both <= await studies(gateway, physician(None, every_institution=True))
    for token in (physician(None), physician("c"), bearer(SCOPE)):
        assert await studies(gateway, token) == set()
    opened = physician("a", break_glass={"id": "case", "patient": "other", "until": 4_000_000_000})
    assert both <= await studies(gateway, opened)
    own = bearer("patient/ImagingStudy.rs", fhirUser="Patient/other", patient="other", sub="other")
    assert await studies(gateway, own) == {worlds.foreign.StudyInstanceUID}
    launched = bearer("patient/ImagingStudy.rs", fhirUser="Practitioner/d", patient="other", institution="a", sub="d")
    assert await studies(gateway, launched) == set()


async def test_a_change_counts_within_seconds(gateway: Gateway) -> None:
    dataset = series(1, seed=74, patient_id="SYN-974")[0]
    await gateway.add_patient(dataset.PatientID, "moving", institution="a")
    await gateway.store(dataset, **SERVICE)
    await gateway.register(dataset.StudyInstanceUID)
    path = f"/studies/{dataset.StudyInstanceUID}/metadata"
    for institution in ("a", "b", None, "a"):
        await gateway.add_patient(dataset.PatientID, "moving", institution=institution)
        await asyncio.sleep(MAX_AGE_S)
        for name in ("a", "b"):
            token, inside = physician(name), name == institution
            assert (await gateway.http.get(path, headers=token)).status_code == (200 if inside else 404)
            assert (dataset.StudyInstanceUID in await studies(gateway, token)) == inside


async def test_what_was_there_before_institutions_were_separate(gateway: Gateway, worlds: Worlds) -> None:
    await gateway.service._institutions.stop()  # What is being read now would be kept after this.
    async with gateway.service._database.connection() as connection:
        await connection.execute("DELETE FROM dicomweb.institutions_read")
        await connection.execute("UPDATE dicomweb.study SET institution = 'Organization/b'")
    await asyncio.sleep(MAX_AGE_S)
    assert worlds.mine.StudyInstanceUID in await studies(gateway, physician("a"))
    assert worlds.mine.StudyInstanceUID not in await studies(gateway, physician("b"))


async def test_when_the_record_cannot_be_asked_nothing_is_shown(
    gateway: Gateway, worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> None:
        raise UpstreamError("away")

    monkeypatch.setattr(gateway.service._institutions._recent, "_read", away)
    await asyncio.sleep(MAX_AGE_S)
    for path in ("/studies", f"/studies/{worlds.mine.StudyInstanceUID}/metadata"):
        assert (await gateway.http.get(path, headers=physician("a"))).status_code == 503


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("Organization/a", "Organization/a"),
        ("https://own.example/fhir/Organization/a", "Organization/a"),
        ("Organization/a/_history/3", "Organization/a"),
        ("https://elsewhere.example/fhir/Organization/a", None),
        ("#contained", None),
        (None, None),
    ],
)
def test_whose_a_patient_is(reference: str | None, expected: str | None) -> None:
    managed = {"managingOrganization": {"reference": reference} if reference else {"display": "SYNTHETIC"}}
    assert organization_of(managed, "https://own.example/fhir") == expected


async def test_what_takes_long_to_read_goes_on_when_nobody_waits(
    gateway: Gateway, worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    recent = gateway.service._institutions._recent
    read, release = recent._read, asyncio.Event()

    async def slow() -> None:
        await release.wait()
        await read()

    monkeypatch.setattr(recent, "_read", slow)
    monkeypatch.setattr("dicomweb.recently_read._WAIT_S", 0.2)
    await asyncio.sleep(MAX_AGE_S)
    for _ in range(2):
        assert (await gateway.http.get("/studies", headers=physician("a"))).status_code == 503
    release.set()
    assert worlds.mine.StudyInstanceUID in await studies(gateway, physician("a"))
