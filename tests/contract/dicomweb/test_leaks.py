"""Another patient's study is indistinguishable from one that does not exist: on every route of the gateway.

The requests are in `leak_probes.py`, one entry for each route of the table; a route without an entry fails the suite.
Each is asked by a token of one patient's record, by one without a scope, by nobody, for UIDs that are not there and
then for a study of another patient that is: the answers are the same. A token that reaches every study, and the patient
whose study it is, do get different ones: so the probe could fail. DICOM PS3.18 §8.2 leaves access to the server.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from pydicom import Dataset

from dicomweb.routes import ROUTES
from tests.builders.dicom import MULTIPART, encoded, multipart, series
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dicomweb.leak_probes import PROBES, Probe

SCOPE = "patient/ImagingStudy.cruds patient/Task.cruds"
EVERYTHING = "system/*.cruds foramen/admin"
CASES = {f"{key} {number}": probe for key, probes in PROBES.items() for number, probe in enumerate(probes)}
VARYING = ("date", "traceparent")


@dataclass(frozen=True)
class Worlds:
    """A study of the asker, one of another patient, and one like it that is not there (nor is its patient)."""

    mine: Dataset
    foreign: Dataset
    absent: Dataset


@pytest.fixture(scope="module")
async def worlds(gateway: Gateway) -> Worlds:
    found = [series(1, seed=seed, patient_id=f"SYN-9{seed}")[0] for seed in (61, 62, 63)]
    for dataset, identity in zip(found[:2], ("mine", "other"), strict=True):
        await gateway.add_patient(dataset.PatientID, identity)
        await gateway.store(dataset)
        await gateway.register(dataset.StudyInstanceUID)
        await gateway.add_workitem(dataset, identity)
    return Worlds(*found)


def names(dataset: Dataset) -> dict[str, str]:
    uids = {"study": dataset.StudyInstanceUID, "series": dataset.SeriesInstanceUID, "instance": dataset.SOPInstanceUID}
    return {**uids, "patient": dataset.PatientID}


async def ask(gateway: Gateway, probe: Probe, dataset: Dataset, headers: dict[str, str]) -> tuple[object, ...]:
    """Status, headers and body, without what the request named and what is made anew for each answer."""
    told = headers | ({"Accept": probe.accept} if probe.accept else {})
    told |= {"Content-Type": MULTIPART} if probe.stores else {}
    body = multipart(encoded(dataset)) if probe.stores else None
    response = await gateway.http.request(probe.method, probe.path.format(**names(dataset)), headers=told, content=body)
    content, values = response.content, dict(response.headers)
    for name, value in sorted(names(dataset).items(), key=lambda item: -len(item[1])):
        content = content.replace(value.encode(), f"<{name}>".encode())
    values = {name: value for name, value in values.items() if name not in VARYING}
    # Of equal length are only the names of a study that is there, and of one that is not, when they are echoed.
    if content != response.content:
        values.pop("content-length", None)
    return response.status_code, values, content


def test_every_route_has_a_probe() -> None:
    assert set(PROBES) == {f"{route.method} {route.path}" for route in ROUTES}
    assert all(PROBES.values())


@pytest.mark.parametrize("probe", CASES.values(), ids=CASES)
async def test_the_other_patients_study_is_as_absent(gateway: Gateway, worlds: Worlds, probe: Probe) -> None:
    bound = bearer(SCOPE, patient="mine")
    person = bearer(SCOPE, patient="mine", fhirUser="Patient/mine")
    for token in (bound, person, bearer("openid"), {}):
        nothing = await ask(gateway, probe, worlds.absent, token)
        assert await ask(gateway, probe, worlds.foreign, token) == nothing, f"{probe} tells that there is something"
        if token in (bound, person) and probe.open_to_patients and not probe.lists:
            own = await ask(gateway, probe, worlds.mine, token)
            assert own != nothing, f"{probe} is closed to the patient"


@pytest.mark.parametrize("probe", CASES.values(), ids=CASES)
async def test_a_token_that_reaches_everything_gets_it(gateway: Gateway, worlds: Worlds, probe: Probe) -> None:
    """The probe can fail: by the same request the study comes out, if one may have it."""
    found = await ask(gateway, probe, worlds.foreign, bearer(EVERYTHING))
    if probe.stores:
        assert found[0] == 200
    elif probe.lists:  # Every study, the other patient's among them.
        assert found != await ask(gateway, probe, worlds.foreign, bearer(SCOPE, patient="mine"))
    else:
        assert found != await ask(gateway, probe, worlds.absent, bearer(EVERYTHING))


async def test_no_list_or_count_changes_with_another_patients_study(gateway: Gateway, worlds: Worlds) -> None:
    lists = [probe for probe in CASES.values() if probe.lists]
    bound, everything = bearer(SCOPE, patient="mine"), bearer(EVERYTHING)
    before = [await ask(gateway, probe, worlds.absent, bound) for probe in lists]
    number = len((await gateway.http.get("/studies", headers=everything)).json())
    more = series(1, seed=64, patient_id="SYN-964")[0]
    await gateway.add_patient(more.PatientID, "another")
    await gateway.store(more)
    await gateway.register(more.StudyInstanceUID)
    assert [await ask(gateway, probe, worlds.absent, bound) for probe in lists] == before
    assert len((await gateway.http.get("/studies", headers=everything)).json()) == number + 1
