"""Chained searches as one statement (store/chain_pages.py): the same answers as step by step, as records change."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from fhir_server.store import arranging, chain_pages
from fhir_server.store.page_shapes import PageQuestion
from tests.contract.fhir.api import Api, entry, observation, refused, running

ORGANIZATIONS, PATIENTS, OBSERVATIONS = 3, 12, 200
CODES = ("F1", "F2", "F3")
Resource = dict[str, Any]


def reference(name: str) -> Resource:
    return {"reference": name}


def records(chooser: random.Random) -> list[Resource]:
    """SYNTHETIC: observations whose subject, performer, or both are patients; organizations that are part of others."""
    found: list[Resource] = []
    for number in range(ORGANIZATIONS):
        more = {"partOf": reference(f"Organization/o{number - 1}")} if number else {}
        identifier = [{"system": "urn:o", "value": str(number)}]
        found.append({"resourceType": "Organization", "id": f"o{number}", "identifier": identifier, **more})
    for number in range(PATIENTS):
        patient: Resource = {
            "resourceType": "Patient",
            "id": f"p{number}",
            "gender": chooser.choice(["male", "female"]),
        }
        patient["identifier"] = [{"system": "urn:p", "value": str(number % 5)}]
        patient["managingOrganization"] = reference(f"Organization/o{chooser.randrange(ORGANIZATIONS)}")
        found.append(patient)
    found.append({"resourceType": "Group", "id": "g", "type": "person", "actual": True})
    for number in range(OBSERVATIONS):
        date = f"2026-{chooser.randint(1, 12):02}-{chooser.randint(1, 28):02}"
        subject = "Group/g" if chooser.random() < 0.2 else f"Patient/p{chooser.randrange(PATIENTS)}"
        item = {**observation(subject, chooser.choice(CODES), date), "id": f"x{number}"}
        if chooser.random() < 0.2:
            item["performer"] = [reference(f"Patient/p{chooser.randrange(PATIENTS)}")]
        found.append(item)
    return found


class Oracle:
    """Answers by looking at every resource."""

    def __init__(self, resources: list[Resource]) -> None:
        self._all = {f"{item['resourceType']}/{item['id']}": item for item in resources}

    def _refers(self, item: Resource, element: str) -> Resource | None:
        return self._all.get(item.get(element, {}).get("reference", ""))

    def _fits(self, item: Resource, names: list[str], value: str) -> bool:
        match names:
            case ["identifier"]:
                return any(f"{i['system']}|{i['value']}" in value.split(",") for i in item.get("identifier", ()))
            case ["gender"]:
                return bool(item.get("gender") == value)
            case [name, *rest]:
                element = {"patient": "subject", "organization": "managingOrganization", "partof": "partOf"}[name]
                target = self._refers(item, element)
                return target is not None and target["resourceType"] != "Group" and self._fits(target, rest, value)
        raise AssertionError(names)

    def ask(self, chain: str, value: str, codes: str) -> set[str]:
        return {
            item["id"]
            for item in self._all.values()
            if item["resourceType"] == "Observation"
            and (not codes or item["code"]["coding"][0]["code"] in codes.split(","))
            and self._fits(item, chain.split("."), value)
        }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def filled(module_database_url: str) -> AsyncIterator[tuple[Api, Oracle]]:
    resources = records(random.Random(7))
    async with running(module_database_url) as (_, client):
        api = Api(client)
        entries = [entry("PUT", f"{item['resourceType']}/{item['id']}", item) for item in resources]
        assert (await api.transaction(*entries)).status_code == 200
        yield api, Oracle(resources)


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each question that was asked as one statement was answered by it."""
    found: list[bool] = []

    def is_answer(question: PageQuestion, records: Any) -> bool:
        found.append(chain_pages.is_answer(question, records))
        return found[-1]

    monkeypatch.setattr("fhir_server.interactions.search.is_answer", is_answer)
    monkeypatch.setattr(chain_pages, "_avoided", {})
    return found


CHAINS = [
    ("patient.organization.identifier", "urn:o|{}", ORGANIZATIONS),
    ("patient.organization.partof.identifier", "urn:o|{}", ORGANIZATIONS),
    ("patient.identifier", "urn:p|{}", 3),
    ("patient.identifier", "urn:p|{},urn:p|3", 3),
    ("patient.gender", "male", 1),
]


@pytest.mark.parametrize(("chain", "template", "choices"), CHAINS)
async def test_same_matches_as_looking_at_every_resource(
    filled: tuple[Api, Oracle], answered: list[bool], chain: str, template: str, choices: int
) -> None:
    api, oracle = filled
    for number in range(choices):
        value = template.format(number)
        for codes in ("F1", "F2,F3", ""):
            query = f"Observation?{chain}={value}{f'&code={codes}' if codes else ''}"
            expected = oracle.ask(chain, value, codes)
            assert set(await api.ids(f"{query}&_count=400")) == expected
            assert set(await api.ids(f"{query}&_count=3")) == expected
            # With a count, a search is arranged step by step: the order is the same as well.
            assert await api.ids(f"{query}&_count=9") == await api.ids(f"{query}&_count=9&_total=accurate")
            assert await api.ids(f"{query}&_sort=date&_count=9") == [
                *reversed(await api.ids(f"{query}&_sort=-date&_count=9"))
            ]
    assert any(answered)


async def test_a_performer_is_not_the_patient(filled: tuple[Api, Oracle], answered: list[bool]) -> None:
    api, oracle = filled
    for number in range(ORGANIZATIONS):
        query = f"patient.organization.identifier=urn:o|{number}&code=F1,F2,F3"
        found = await api.ids(f"Observation?{query}&_count=400")
        assert set(found) == oracle.ask("patient.organization.identifier", f"urn:o|{number}", "F1,F2,F3")
    assert not all(answered)


async def test_too_many_keys_are_arranged_step_by_step(
    filled: tuple[Api, Oracle], answered: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    api, oracle = filled
    monkeypatch.setattr(arranging, "MAX_PATIENTS", 1)
    for _ in range(3):
        found = await api.ids("Observation?patient.organization.identifier=urn:o|1&code=F1&_count=400")
        assert set(found) == oracle.ask("patient.organization.identifier", "urn:o|1", "F1")
    assert answered == [False]


async def test_own_writes_are_seen(api: Api, answered: list[bool]) -> None:
    for name in ("a", "b"):
        await api.put_ok({"resourceType": "Organization", "id": name, "identifier": [{"value": name}]})
    patient = {"resourceType": "Patient", "id": "p", "managingOrganization": reference("Organization/a")}
    await api.put_ok(patient)
    await api.put_ok({**observation("Patient/p", "F1"), "id": "x"})
    query = "Observation?patient.organization.identifier={}&code=F1"
    assert await api.ids(query.format("a")) == ["x"]
    assert await api.ids(query.format("b")) == []
    await api.put_ok({**patient, "managingOrganization": reference("Organization/b")})
    assert await api.ids(query.format("a")) == []
    assert await api.ids(query.format("b")) == ["x"]
    await api.put_ok({"resourceType": "Organization", "id": "b", "identifier": [{"value": "c"}]})
    assert await api.ids(query.format("b")) == []
    assert await api.ids(query.format("c")) == ["x"]
    await api.delete("/fhir/Observation/x")
    assert await api.ids(query.format("c")) == []
    assert answered == [True] * 7


async def test_access_bounds_every_step(filled: tuple[Api, Oracle], answered: list[bool]) -> None:
    api, oracle = filled
    query = "Observation?patient.identifier=urn:p|2&code=F1&_count=400"
    own = api.as_("patient/Observation.rs patient/Patient.rs", patient="p2")
    other = api.as_("patient/Observation.rs patient/Patient.rs", patient="p3")
    everything = set(await api.ids(query))
    seen = set(await own.ids(query))
    assert seen
    assert seen < everything == oracle.ask("patient.identifier", "urn:p|2", "F1")
    assert await other.ids(query) == []
    assert answered
    closed = api.as_("system/Observation.rs system/Patient.rs")
    refused(await closed.get("/fhir/Observation?patient.organization.identifier=urn:o|1"), 403, "forbidden")


async def test_explain_tells_the_statement_that_runs(filled: tuple[Api, Oracle]) -> None:
    api, _ = filled
    admin = api.as_("system/*.cruds foramen/admin")
    for mode in ("true", "analyze"):
        answer = await admin.get(f"/fhir/Observation?patient.identifier=urn:p|4&_count=5&_explain={mode}")
        assert answer.status_code == 200
        (sql,) = [part["valueString"] for part in answer.json()["parameter"] if part["name"] == "sql"]
        assert sql.count("cardinality(i.rows)") == 1
        assert "urn:p" not in answer.text
