"""A patch whose success depends on values is for those who may read them: else they could be guessed. SYNTHETIC."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.fhir.api import Api, entry, refused
from tests.contract.fhir.test_patch import binary, fhirpath, json_patch, replace


@pytest.fixture
async def path(module_api: Api) -> str:
    patient = {"resourceType": "Patient", "gender": "female", "name": [{"family": "SYNTHETIC"}, {"family": "Two"}]}
    return f"Patient/{(await module_api.create(patient))['id']}"


def is_gender(value: str) -> dict[str, Any]:
    return {"op": "test", "path": "/gender", "value": value}


@pytest.mark.parametrize("value", ["female", "male"])
async def test_a_test_is_refused_to_who_may_only_update(module_api: Api, path: str, value: str) -> None:
    writer = module_api.as_("system/Patient.u")
    change = replace("/birthDate", "1980-01-01")
    refused(await json_patch(writer, path, is_gender(value), {**change, "op": "add"}), 403, "forbidden")
    mixed = module_api.as_("patient/Patient.rs system/Patient.u", patient="somebody-else")
    refused(await json_patch(mixed, path, is_gender(value)), 403, "forbidden")
    for kind, status in (("transaction", 403), ("batch", 200)):
        answer = await writer.transaction(entry("PATCH", path, binary(is_gender(value))), kind=kind)
        assert answer.status_code == status, answer.text
        if kind == "batch":
            assert answer.json()["entry"][0]["response"]["status"].startswith("403")
    assert (await module_api.get(f"/fhir/{path}")).json()["meta"]["versionId"] == "1"


@pytest.mark.parametrize("family", ["SYNTHETIC", "Nobody"])
@pytest.mark.parametrize(
    "condition",
    ["Patient.name.where(family='{}').family", "Patient.name[iif(name[0].family='{}',0,1)]", "name.skip(1).family"],
)
async def test_a_condition_in_fhirpath_is_refused_too(module_api: Api, path: str, family: str, condition: str) -> None:
    writer = module_api.as_("system/Patient.u")
    for kind, more in (("replace", {"valueString": "New"}), ("delete", {})):
        body = fhirpath(kind, condition.format(family), **more)
        refused(await writer.send("PATCH", f"/fhir/{path}", body), 403, "forbidden")


async def test_elements_can_be_named_and_versions_asked_for(module_api: Api, path: str) -> None:
    writer = module_api.as_("system/Patient.u")
    body = fhirpath("replace", "Patient.name[0].family", valueString="New")
    assert (await writer.send("PATCH", f"/fhir/{path}", body, if_match='W/"1"')).status_code == 200
    assert (await writer.send("PATCH", f"/fhir/{path}", body, if_match='W/"1"')).status_code == 412
    assert (await json_patch(writer, path, replace("/gender", "male"))).status_code == 200
    reader = module_api.as_("system/Patient.ru")
    assert (await json_patch(reader, path, is_gender("male"))).status_code == 200
    refused(await json_patch(reader, path, is_gender("female")), 409, "conflict")
