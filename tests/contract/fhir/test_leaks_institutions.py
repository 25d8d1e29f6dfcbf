"""Where institutions divide the record, another institution's patients are as absent: on every route. All SYNTHETIC.

The requests are those of `test_leaks.py`, asked by a physician of institution A with scopes for everything (ADR 0030).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.contract.fhir.api import Api, running
from tests.contract.fhir.leak_probes import PROBES
from tests.contract.fhir.leak_world import EVERYONE, LAUNCHED, PATIENT_A, Probe, Worlds, ask, standing
from tests.contract.fhir.test_leaks import SETTINGS

OWN, OTHER = "org-a", "org-b"
BY_PATIENT = ("Patient/{t}/$access-log", "Patient/{t}/$subject-export", "Patient/$everything")
"""For tokens of one patient's record: a physician's gets the same answer whoever manages the patient."""
DEFINITIONS = ("CodeSystem", "ValueSet", "ConceptMap")
"""In nobody's record: they are everybody's."""
CASES = {
    f"{key} {number}": probe
    for key, probes in PROBES.items()
    for number, probe in enumerate(probes)
    # Of the many entries of Bundles and searches by POST, every third: the same code has decided them by then.
    if not probe.path.startswith(DEFINITIONS) and (number % 3 == 0 or key not in ("POST ", "POST {type}/_search"))
}


class Divided(Worlds):
    """Worlds whose own patients institution A manages, and whose foreign ones institution B."""

    def _token(self, probe: Probe, patient: str, kind: str) -> Api:
        scope = probe.scopes.replace("patient/", "user/")
        who = {"fhirUser": "Practitioner/d", "client_id": "app", "sub": "asker", "institution": OWN}
        return self.everyone.as_(scope, **who)

    def placed(self, resource: dict[str, Any], which: str) -> dict[str, Any]:
        if resource["resourceType"] != "Patient":
            return resource
        return {**resource, "managingOrganization": {"reference": f"Organization/{OWN if which == 'own' else OTHER}"}}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def worlds(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worlds]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("FORAMEN_INSTITUTIONS", "separate")
        for name, value in SETTINGS.items():
            patch.setenv(f"FORAMEN_FHIR_{name}", value)
        async with running(module_database_url) as (_, client):
            everyone = Api(client, EVERYONE, client_id="everyone", sub="everyone")
            patient = {"resourceType": "Patient", "id": PATIENT_A, "name": [{"family": "SYNTHETIC"}]}
            await everyone.put_ok({**patient, "managingOrganization": {"reference": f"Organization/{OWN}"}})
            yield Divided(everyone)


@pytest.mark.parametrize("probe", CASES.values(), ids=CASES)
async def test_to_another_institution_the_data_are_as_absent(worlds: Worlds, probe: Probe) -> None:
    absent = await worlds.make(probe, "absent")
    nothing = await ask(worlds.asker(probe, absent, LAUNCHED), probe, absent, head=True)
    foreign = await worlds.make(probe, "foreign")
    before = await standing(worlds.everyone, foreign)
    told = await ask(worlds.asker(probe, foreign, LAUNCHED), probe, foreign, head=True)
    assert told == nothing, f"{probe} tells that there is something"
    assert await standing(worlds.everyone, foreign) == before, f"{probe} changed something"
    if probe.owner and not probe.blind and not probe.path.startswith(BY_PATIENT):
        own = await worlds.make(probe, "own")
        found = await ask(worlds.asker(probe, own, LAUNCHED), probe, own, head=True)
        assert found != nothing, f"{probe} is closed to the patient's institution"
