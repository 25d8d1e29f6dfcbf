"""Every refusal: its status, its issue code, and that nothing was written."""

from __future__ import annotations

import pytest

from tests.builders.tokens import bearer
from tests.contract.fhir.api import Api, refused

GOOD = {"resourceType": "Patient", "gender": "female"}


async def test_unknown_type_and_url(module_api: Api) -> None:
    refused(await module_api.get("/fhir/Nonsense/1"), 404, "not-found")
    refused(await module_api.get("/fhir/Nonsense"), 404, "not-found")
    refused(await module_api.get("/fhir/Patient/1/2/3/4/5"), 404, "not-found")
    refused(await module_api.get("/fhir/Patient/none"), 404, "not-found")
    refused(await module_api.get("/fhir/Patient/none/_history"), 404, "not-found")
    refused(await module_api.get("/fhir/Patient/1/_history/abc"), 404, "not-found")
    refused(await module_api.get("/fhir/Patient/..%2f..%2fetc"), 404, "not-found")


async def test_method_not_allowed_names_what_is(module_api: Api) -> None:
    answer = await module_api.send("POST", "/fhir/Patient/1", GOOD)
    refused(answer, 405, "not-supported")
    assert answer.headers["allow"] == "DELETE, GET, HEAD, PATCH, PUT"
    refused(await module_api.delete("/fhir/metadata"), 405, "not-supported")


async def test_negotiation(module_api: Api) -> None:
    refused(await module_api.get("/fhir/Patient/1", accept="text/turtle"), 406, "not-supported")
    refused(await module_api.get("/fhir/Patient/1?_format=ttl"), 406, "not-supported")
    assert (await module_api.get("/fhir/Patient?_format=application/fhir%2Bjson")).status_code == 200
    refused(await module_api.post("/fhir/Patient", b"<Patient/>", content_type="text/turtle"), 415, "not-supported")
    refused(
        await module_api.post("/fhir/Patient", GOOD, content_type="application/json; charset=gbk"), 415, "not-supported"
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b'{"resourceType":"Patient"',
        b'{"resourceType":"Patient","name":[{"family":"\xff\xfe"}]}',
        b'{"gender":"female"}',
        b'{"resourceType":7}',
        b'{"resourceType":"Patient","multipleBirthInteger":NaN}',
        b'{"resourceType":"Patient","gender":"female","gender":"male"}',
        b'{"resourceType":"Patient","resourceType":"Patient"}',
        b'{"resourceType":"Patient","name":[{"family":"a","family":"b"}]}',
    ],
)
async def test_bad_json(module_api: Api, body: bytes) -> None:
    refused(await module_api.post("/fhir/Patient", body), 400, "structure")


@pytest.mark.parametrize("kind", [b"[", b'{"extension":', b'{"a":['])
async def test_depth_bomb(module_api: Api, kind: bytes) -> None:
    body = b'{"resourceType":"Patient","extension":' + kind * 50_000
    refused(await module_api.post("/fhir/Patient", body), 400, "too-long")


async def test_a_closed_depth_bomb_is_refused_too(module_api: Api) -> None:
    deep = b'{"extension":[' * 5_000 + b'{"url":"x"}' + b"]}" * 5_000
    refused(
        await module_api.post("/fhir/Patient", b'{"resourceType":"Patient","extension":[' + deep + b"]}"),
        400,
        "too-long",
    )


@pytest.mark.parametrize(
    ("change", "code", "expression"),
    [
        ({"gender": "malex"}, "code-invalid", "Patient.gender"),
        ({"birthDate": "1990-02-30"}, "value", "Patient.birthDate"),
        ({"birthDate": "yesterday"}, "value", "Patient.birthDate"),
        ({"nonsense": 1}, "structure", "Patient.nonsense"),
        ({"name": []}, "structure", "Patient.name"),
        ({"generalPractitioner": [{"reference": "Device/1"}]}, "value", "Patient.generalPractitioner[0].reference"),
        (
            {"generalPractitioner": [{"reference": "not a reference"}]},
            "value",
            "Patient.generalPractitioner[0].reference",
        ),
        ({"contact": [{"gender": "x"}]}, "code-invalid", "Patient.contact[0].gender"),
        ({"communication": [{}]}, "required", "Patient.communication[0].language"),
    ],
)
async def test_invalid_resource_names_the_place(module_api: Api, change: dict, code: str, expression: str) -> None:
    before = (await module_api.get("/fhir/Patient?_summary=count")).json()["total"]
    outcome = refused(await module_api.post("/fhir/Patient", {**GOOD, **change}), 422, code)
    assert expression in outcome["issue"][0]["expression"]
    assert (await module_api.get("/fhir/Patient?_summary=count")).json()["total"] == before


async def test_faults_are_listed_together_and_show_no_values(module_api: Api) -> None:
    body = {**GOOD, "gender": "secret-word", "birthDate": "secret-word", "nonsense": "secret-word"}
    outcome = refused(await module_api.post("/fhir/Patient", body), 422, "value")
    assert len(outcome["issue"]) >= 3
    assert "secret-word" not in str(outcome)


async def test_wrong_identity(module_api: Api) -> None:
    refused(await module_api.post("/fhir/Observation", GOOD), 400, "invalid")
    refused(await module_api.put("/fhir/Patient/a", GOOD), 400, "required")
    refused(await module_api.put("/fhir/Patient/a", {**GOOD, "id": "b"}), 400, "value")
    refused(await module_api.put("/fhir/Patient/a_b", {**GOOD, "id": "a_b"}), 422, "value")
    refused(await module_api.put(f"/fhir/Patient/{'x' * 65}", {**GOOD, "id": "x" * 65}), 422, "value")


async def test_version_conflict_and_bad_tag(module_api: Api) -> None:
    created = await module_api.create(GOOD)
    url = f"/fhir/Patient/{created['id']}"
    refused(await module_api.put(url, created, if_match='W/"7"'), 412, "conflict")
    refused(await module_api.put(url, created, if_match="nonsense"), 400, "value")
    refused(await module_api.delete(url, if_match='W/"7"'), 412, "conflict")
    refused(await module_api.put("/fhir/Patient/never", {**GOOD, "id": "never"}, if_match='W/"1"'), 412, "conflict")


async def test_too_large(module_api: Api) -> None:
    headers = {**module_api.headers, "Content-Type": "application/fhir+json", "Content-Length": str(10**9)}
    answer = await module_api.http.post("/fhir/Patient", content=b"{}", headers=headers)
    refused(answer, 413, "too-long")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("birthdate=yesterday", "value"),
        ("birthdate=2020-13", "value"),
        ("_count=many", "value"),
        ("_sort=nonsense", "value"),
        ("gender:exact=x", "not-supported"),
        ("name:nonsense=x", "not-supported"),
        ("_include=nonsense", "value"),
        ("_include=Patient:gender", "value"),
        ("_cursor=%7B%7D", "value"),
        ("_cursor=WzEsMiwzLDRd", "value"),
        ("_cursor=WyJhIiwiYiJd", "value"),
        ("_cursor=WzFlMzAwLDFlMzAwXQ", "value"),
        ("gender:missing=maybe", "value"),
        ("gender=a,,b", "value"),
        ("name=%00", "value"),
        ("name=%ff", "value"),
        ("gender.name=x", "value"),
        ("_has:Nope:x:y=z", "value"),
        ("identifier=a|b|c", "value"),
        ("_summary=nonsense", "value"),
        ("gender=" + ",".join(["a"] * 501), "too-costly"),
        ("&".join(["gender=a"] * 101), "too-costly"),
    ],
)
async def test_bad_searches(module_api: Api, query: str, code: str) -> None:
    refused(await module_api.get(f"/fhir/Patient?{query}"), 400, code)


async def test_sql_like_values_are_values(module_api: Api) -> None:
    for value in ("'; DROP TABLE fhir.resource; --", "$1", "%27 OR 1=1", "\\"):
        answer = await module_api.http.get("/fhir/Patient", params={"name": value}, headers=module_api.headers)
        assert answer.status_code == 200
        assert answer.json()["total"] == 0


async def test_unknown_parameter_is_a_warning_or_an_error(module_api: Api) -> None:
    lenient = (await module_api.get("/fhir/Patient?nonsense=1&_count=1")).json()
    outcome = next(e for e in lenient["entry"] if e["search"]["mode"] == "outcome")["resource"]
    assert outcome["issue"][0]["severity"] == "warning"
    assert "nonsense" not in lenient["link"][0]["url"]
    refused(await module_api.get("/fhir/Patient?nonsense=1", prefer="handling=strict"), 400, "not-supported")


async def test_tokens(module_api: Api) -> None:
    http = module_api.http
    answer = await http.get("/fhir/Patient/1")
    refused(answer, 401, "login")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    refused(await http.get("/fhir/Patient/1", headers=bearer("system/*.r", expires_in=-5)), 401, "expired")
    refused(await http.get("/fhir/Patient/1", headers=bearer("system/*.r", aud="http://elsewhere")), 401, "login")
    refused(await http.get("/fhir/Patient/1", headers=bearer("system/Observation.r")), 403, "forbidden")
    refused(await http.get("/fhir/Patient", headers=bearer("system/Patient.r")), 403, "forbidden")
    refused(await http.get("/fhir/Patient/1", headers=bearer("patient/Patient.r")), 403, "forbidden")


async def test_post_search_needs_a_form(module_api: Api) -> None:
    refused(await module_api.post("/fhir/Patient/_search", GOOD), 415, "not-supported")


async def test_metadata_needs_no_token(module_api: Api) -> None:
    answer = await module_api.http.get("/fhir/metadata")
    assert answer.status_code == 200
    assert answer.json()["fhirVersion"] == "4.0.1"
