"""Official examples broken in every known way: each is refused, and the issue points at what is broken."""
# ruff: noqa: T201 - the table of kinds and counts is printed on purpose

from __future__ import annotations

import random
from functools import lru_cache

import orjson
import pytest

from fhir_server.model.resource import Resource, parse_resource
from fhir_server.model.validation import issues_of, validate
from foramen.kernel.errors import InvalidRequestError
from tests.contract.fhir.api import Api, refused
from tests.contract.fhir.mutations import MUTATIONS, points_at
from tests.contract.fhir.test_official_examples import examples

pytestmark = pytest.mark.fhir_definitions
EACH = 30
MOST_BYTES = 60_000


@lru_cache(maxsize=1)
def valid_examples() -> list[bytes]:
    """Valid examples in a fixed random order; one of each type first, so that every type is mutated."""
    found = [body for name, body in examples() if len(body) <= MOST_BYTES]
    random.Random(7).shuffle(found)
    seen: set[str] = set()
    first, rest = [], []
    for body in found:
        kind = orjson.loads(body)["resourceType"]
        (rest if kind in seen else first).append(body)
        seen.add(kind)
    return [*first, *rest[:700]]


def test_every_mutation_is_refused_at_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    counts: dict[str, int] = {}
    missed: list[str] = []
    for kind, mutate in MUTATIONS.items():
        rng = random.Random(kind)
        applied = 0
        for body in valid_examples():
            data = orjson.loads(body)
            if applied == EACH:
                break
            path = mutate(rng, data)
            if path is None:
                continue
            applied += 1
            changed = orjson.dumps(data)
            expressions = [e for issue in issues_of(parse_resource(changed, 64)) for e in issue.expression]
            if not any(points_at(expression, path) for expression in expressions):
                missed.append(f"{kind}: {path} not among {expressions[:3]}")
        counts[kind] = applied
    with capsys.disabled():
        print(f"\nmutations: {len(counts)} kinds, {sum(counts.values())} broken resources, {len(missed)} not caught")
        for kind, count in counts.items():
            print(f"  {count:4} {kind}")
    assert missed == []
    assert min(counts.values()) > 0, {kind for kind, count in counts.items() if not count}
    assert len(counts) >= 60


def test_an_element_given_twice_is_400() -> None:
    checked = 0
    for body in valid_examples()[:200]:
        data = orjson.loads(body)
        name = next(name for name in data if name not in ("resourceType", "id"))
        twice = orjson.dumps(data)[:-1] + b"," + orjson.dumps({name: data[name]})[1:]
        with pytest.raises(InvalidRequestError):
            validate(Resource(data["resourceType"], twice, data))
        checked += 1
    assert checked == 200


async def test_refused_over_http_with_every_fault_and_no_value(module_api: Api) -> None:
    broken = {
        "resourceType": "Patient",
        "birthDate": "1980-02-30",
        "gender": "SECRET-GENDER",
        "contact": [{"gender": "SECRET-GENDER"}],
        "generalPractitioner": [{"reference": "Patient/SECRET"}],
        "photo": [{"contentType": "SECRET PICTURE"}],
        "multipleBirthInteger": "SECRET",
    }
    outcome = refused(await module_api.post("/fhir/Patient", broken), 422, "structure")
    found = {issue["expression"][0]: issue["code"] for issue in outcome["issue"]}
    assert found["Patient.birthDate"] == "value"
    assert found["Patient.gender"] == found["Patient.contact[0].gender"] == "code-invalid"
    assert found["Patient.photo[0].contentType"] == "code-invalid"
    assert found["Patient.generalPractitioner[0].reference"] == "value"
    assert found["Patient.multipleBirthInteger"] == "structure"
    assert "SECRET" not in orjson.dumps(outcome).decode()


async def test_batch_and_transaction_entries_are_checked_alike(module_api: Api) -> None:
    bad = {"resourceType": "Patient", "photo": [{"contentType": "a picture"}], "name": [{}]}
    request = {"request": {"method": "POST", "url": "Patient"}, "resource": bad}
    response = await module_api.transaction(request)
    outcome = refused(response, 422, "code-invalid")
    places = {issue["expression"][0] for issue in outcome["issue"]}
    assert "Bundle.entry[0].resource.photo[0].contentType" in places
    assert "Bundle.entry[0].resource.name[0]" in places
    batch = (await module_api.transaction(request, kind="batch")).json()
    assert batch["entry"][0]["response"]["status"].startswith("422")
