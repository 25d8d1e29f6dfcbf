"""Asking about what one may not see is indistinguishable from asking about what does not exist: on every route.

The requests are in `leak_probes.py`, one entry for each route of the table; a route without an entry fails the suite.
Each request is asked in a world without the other patient's data and in one with them, by a token that reaches one
patient's record, by one without a scope, by nobody: the answers are the same. That this proves something is shown by
two who do get different answers: the patient whose data it is, and a token that reaches everything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fhir_server.routes import ROUTES
from tests.contract.fhir.api import Api, running
from tests.contract.fhir.leak_probes import PROBES
from tests.contract.fhir.leak_world import EVERYONE, LAUNCHED, PATIENT_A, SIGNED_IN, Probe, Worlds, ask, standing

CASES = {f"{key} {number}": probe for key, probes in PROBES.items() for number, probe in enumerate(probes)}
BOUND = {f"{name} {LAUNCHED}": (probe, LAUNCHED) for name, probe in CASES.items()} | {
    # What is not released yet is hidden from patients only where something is read; jobs are slow, once is enough.
    f"{name} {SIGNED_IN}": (probe, SIGNED_IN)
    for name, probe in CASES.items()
    if probe.method == "GET" and not probe.follow
}
SETTINGS = {"JOB_POLL_S": "0.05", "EXPORT_SETTLE_S": "0.05", "EXPORT_POLLS_PER_S": "1000", "FULL_TEXT": "true"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def worlds(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worlds]:
    """A server with the record of patient a, and a token that reaches everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(tmp_path_factory.mktemp("home")))
        for name, value in SETTINGS.items():
            patch.setenv(f"FORAMEN_FHIR_{name}", value)
        async with running(module_database_url) as (_, client):
            everyone = Api(client, EVERYONE, client_id="everyone", sub="everyone")
            await everyone.put_ok({"resourceType": "Patient", "id": PATIENT_A, "name": [{"family": "SYNTHETIC"}]})
            yield Worlds(everyone)


def test_every_route_has_a_probe() -> None:
    assert set(PROBES) == {f"{route.method} {route.path}" for route in ROUTES}
    assert all(PROBES.values())


@pytest.mark.parametrize(("probe", "kind"), BOUND.values(), ids=BOUND)
async def test_to_another_patient_the_data_are_as_absent(worlds: Worlds, probe: Probe, kind: str) -> None:
    absent = await worlds.make(probe, "absent", kind)
    nothing = await ask(worlds.asker(probe, absent, kind), probe, absent, head=kind == LAUNCHED)
    foreign = await worlds.make(probe, "foreign", kind)
    before = await standing(worlds.everyone, foreign)
    told = await ask(worlds.asker(probe, foreign, kind), probe, foreign, head=kind == LAUNCHED)
    assert told == nothing, f"{probe} tells that there is something"
    assert await standing(worlds.everyone, foreign) == before, f"{probe} changed something"
    is_open = probe.owner and (kind == SIGNED_IN or not probe.in_person)
    if is_open and not probe.blind:  # The route is open to such tokens: whose data it is made the difference.
        own = await worlds.make(probe, "own", kind)
        seen = await ask(worlds.asker(probe, own, kind), probe, own, head=kind == LAUNCHED)
        assert seen != nothing, f"{probe} is closed to the patient"


@pytest.mark.parametrize("probe", CASES.values(), ids=CASES)
async def test_without_scope_they_are_absent_and_with_every_scope_they_come_out(worlds: Worlds, probe: Probe) -> None:
    without, everyone = [worlds.everyone.as_("openid"), nobody(worlds.everyone)], worlds.everyone
    absent = await worlds.make(probe, "absent")
    nothing, *nothings = [await ask(api, probe, absent) for api in (everyone, *without)]
    foreign = await worlds.make(probe, "foreign")
    assert [await ask(api, probe, foreign) for api in without] == nothings, f"{probe} tells that there is something"
    if not probe.everybody:
        return
    found = await ask(everyone, probe, foreign)
    if probe.blind:
        assert found == nothing
        assert found[0].status not in (401, 403), found[0].body
    else:
        assert found != nothing, f"{probe} shows nothing to anybody: it proves nothing"


def nobody(api: Api) -> Api:
    """The same server without a token."""
    found = api.as_("openid")
    del found.headers["authorization"]
    return found
