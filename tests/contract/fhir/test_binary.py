"""Binary: raw content in and out, FHIR form for those who ask for it, security context."""

from __future__ import annotations

import base64
import uuid

import pytest

from tests.contract.fhir.api import Api, refused

PDF = b"%PDF-1.7\n\x00\xff\xfe SYNTHETIC"


async def create(api: Api, content: bytes = PDF, content_type: str = "application/pdf", **headers: str) -> str:
    answer = await api.post("/fhir/Binary", content, content_type=content_type, **headers)
    assert answer.status_code == 201, answer.text
    name: str = answer.json()["id"]
    return f"/fhir/Binary/{name}"


async def test_raw_in_raw_out(module_api: Api) -> None:
    url = await create(module_api)
    for accept in ("application/pdf", "application/*", "*/*", "image/png, application/pdf;q=0.5"):
        answer = await module_api.get(url, accept=accept)
        assert (answer.status_code, answer.content) == (200, PDF), accept
        assert answer.headers["content-type"] == "application/pdf"
        assert answer.headers["etag"] == 'W/"1"'
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
    assert (await module_api.get(f"{url}/_history/1", accept="application/pdf")).content == PDF
    assert (await module_api.get(url, accept="application/pdf", if_none_match='W/"1"')).status_code == 304


async def test_fhir_form_for_those_who_name_it(module_api: Api) -> None:
    url = await create(module_api)
    for answer in (
        await module_api.get(url),
        await module_api.get(url, accept="application/json"),
        await module_api.get(f"{url}?_format=json", accept="application/pdf"),
    ):
        data = answer.json()
        assert data["resourceType"] == "Binary"
        assert data["contentType"] == "application/pdf"
        assert base64.b64decode(data["data"]) == PDF
    xml = await module_api.get(url, accept="application/fhir+xml")
    assert xml.headers["content-type"].startswith("application/fhir+xml")
    assert b'<contentType value="application/pdf"/>' in xml.content
    refused(await module_api.get(url, accept="image/png"), 406, "not-supported")


async def test_a_binary_resource_is_taken_as_it_is(module_api: Api) -> None:
    data = base64.b64encode(b"hello").decode()
    created = await module_api.create({"resourceType": "Binary", "contentType": "text/plain", "data": data})
    answer = await module_api.get(f"/fhir/Binary/{created['id']}", accept="text/plain")
    assert answer.content == b"hello"


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b'{"a":1}', "application/json"),
        (b"<html/>", "application/xml"),
        (b"not json", "application/json"),
        (b'{"resourceType":"Patient"}', "application/fhir+json"),
        (b"\x00\x01", "application/octet-stream"),
        ("grüß".encode("latin-1"), "text/plain; charset=iso-8859-1"),
    ],
)
async def test_any_content_comes_back_as_sent(module_api: Api, content: bytes, content_type: str) -> None:
    url = await create(module_api, content, content_type)
    answer = await module_api.get(url, accept="*/*")
    assert answer.content == content
    assert answer.headers["content-type"] == content_type


async def test_update_by_raw_content(module_api: Api) -> None:
    name = uuid.uuid4().hex
    url = f"/fhir/Binary/{name}"
    put = await module_api.put(url, b"one", content_type="text/plain")
    assert (put.status_code, put.json()["id"]) == (201, name)
    assert (await module_api.put(url, b"two", content_type="text/plain", if_match='W/"1"')).status_code == 200
    refused(await module_api.put(url, b"three", content_type="text/plain", if_match='W/"1"'), 412, "conflict")
    assert (await module_api.get(url, accept="text/plain")).content == b"two"


async def test_security_context(module_api: Api) -> None:
    patient = await module_api.create({"resourceType": "Patient"})
    url = await create(module_api, x_security_context=f"Patient/{patient['id']}")
    data = (await module_api.get(url)).json()
    assert data["securityContext"] == {"reference": f"Patient/{patient['id']}"}
    answer = await module_api.get(url, accept="*/*")
    assert answer.headers["x-security-context"] == f"Patient/{patient['id']}"
    answer = await module_api.post(
        "/fhir/Binary", PDF, content_type="application/pdf", x_security_context="no reference"
    )
    assert answer.status_code == 422


async def test_refusals(module_api: Api) -> None:
    refused(await module_api.post("/fhir/Binary", b"", content_type="application/pdf"), 400, "required")
    refused(await module_api.post("/fhir/Binary", b"x", content_type="nonsense"), 415, "not-supported")
    refused(
        await module_api.post("/fhir/Binary", b'{"resourceType":"Bin', content_type="application/fhir+json"),
        400,
        "structure",
    )
    refused(await module_api.get("/fhir/Binary/nobody", accept="application/pdf"), 404, "not-found")
    reader = module_api.as_("system/Binary.rs")
    refused(await reader.post("/fhir/Binary", PDF, content_type="application/pdf"), 403, "forbidden")


async def test_inside_a_bundle_it_is_a_resource(module_api: Api) -> None:
    url = await create(module_api)
    answer = await module_api.transaction(
        {"request": {"method": "GET", "url": url.removeprefix("/fhir/")}}, kind="batch"
    )
    assert answer.json()["entry"][0]["resource"]["contentType"] == "application/pdf"
