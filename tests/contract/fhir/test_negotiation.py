"""Formats of answers and bodies: Accept, _format, _pretty, Content-Type, compression."""

from __future__ import annotations

import gzip
from typing import Any

import httpx
import orjson
import pytest
import zstandard
from lxml import etree
from starlette.applications import Starlette
from starlette.routing import Mount

from fhir_server.formats.compression import Compression
from tests.contract.fhir.api import Api, refused

JSON, XML = "application/fhir+json", "application/fhir+xml"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", JSON),
        ("", JSON),
        (JSON, JSON),
        ("application/json", JSON),
        ("text/json", JSON),
        ("application/*", JSON),
        (XML, XML),
        ("application/xml", XML),
        ("text/xml", XML),
        (f"{XML};q=0.5, {JSON};q=0.9", JSON),
        (f"{JSON};q=0.5, {XML}", XML),
        (f"{JSON};q=0, */*", XML),
        (f"{XML};q=0, */*", JSON),
        (BROWSER, XML),
        (f"{JSON}; fhirVersion=4.0", JSON),
        (f"{XML}; fhirVersion=3.0, {JSON}; fhirVersion=4.0; q=0.1", JSON),
        ("text/turtle, application/fhir+xml;q=0.1", XML),
    ],
)
async def test_accept(module_api: Api, accept: str, media_type: str) -> None:
    answer = await module_api.get("/fhir/metadata", accept=accept)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == f"{media_type}; charset=utf-8" or media_type == JSON
    assert answer.headers["content-type"].startswith(media_type)


@pytest.mark.parametrize(
    "accept",
    ["text/turtle", "text/html", "image/png", f"{JSON}; fhirVersion=3.0", f"{JSON};q=0, {XML};q=0", "nonsense"],
)
async def test_not_acceptable(module_api: Api, accept: str) -> None:
    refused(await module_api.get("/fhir/Patient", accept=accept), 406, "not-supported")


@pytest.mark.parametrize(
    ("value", "media_type"),
    [
        ("json", JSON),
        ("application/json", JSON),
        ("application/fhir+json", JSON),
        ("application/fhir%2Bjson", JSON),
        ("text/json", JSON),
        ("xml", XML),
        ("text/xml", XML),
        ("application/xml", XML),
        ("application/fhir+xml", XML),
        ("application/fhir%2Bxml%3B%20fhirVersion%3D4.0", XML),
    ],
)
async def test_format_goes_before_accept(module_api: Api, value: str, media_type: str) -> None:
    answer = await module_api.get(f"/fhir/Patient?_format={value}", accept="text/turtle")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith(media_type)


@pytest.mark.parametrize("value", ["ttl", "html", "application/pdf", "application/fhir%2Bjson%3BfhirVersion%3D5.0"])
async def test_format_not_spoken(module_api: Api, value: str) -> None:
    refused(await module_api.get(f"/fhir/Patient?_format={value}"), 406, "not-supported")


async def test_pretty(module_api: Api, patient: dict[str, Any]) -> None:
    created = await module_api.create(patient)
    plain = await module_api.get(f"/fhir/Patient/{created['id']}")
    pretty = await module_api.get(f"/fhir/Patient/{created['id']}?_pretty=true")
    assert b'\n  "name": [' in pretty.content
    assert pretty.json() == plain.json()
    assert pretty.headers["etag"] == plain.headers["etag"]
    xml = await module_api.get(f"/fhir/Patient/{created['id']}?_pretty=true&_format=xml")
    assert b"\n  <name>" in xml.content


async def test_errors_bundles_and_statement_in_xml(module_api: Api, patient: dict[str, Any]) -> None:
    await module_api.create(patient)
    missing = await module_api.get("/fhir/Patient/nobody", accept=XML)
    assert missing.status_code == 404
    assert etree.fromstring(missing.content).tag == "{http://hl7.org/fhir}OperationOutcome"
    refused_create = await module_api.post("/fhir/Patient", {"resourceType": "Patient", "gender": "x"}, accept=XML)
    assert refused_create.status_code == 422
    assert b'<expression value="Patient.gender"/>' in refused_create.content
    found = etree.fromstring((await module_api.get("/fhir/Patient?_count=1", accept=XML)).content)
    names = {"f": "http://hl7.org/fhir"}
    assert found.tag == "{http://hl7.org/fhir}Bundle"
    assert len(found.findall("f:entry/f:resource/f:Patient", names)) == 1
    statement = etree.fromstring((await module_api.get("/fhir/metadata?_format=xml")).content)
    assert statement.tag == "{http://hl7.org/fhir}CapabilityStatement"
    unauthenticated = await module_api.http.get("/fhir/Patient", headers={"accept": XML})
    assert unauthenticated.status_code == 401
    assert etree.fromstring(unauthenticated.content).tag == "{http://hl7.org/fhir}OperationOutcome"


async def test_xml_head_tells_the_length_of_get(module_api: Api, patient: dict[str, Any]) -> None:
    created = await module_api.create(patient)
    url = f"/fhir/Patient/{created['id']}?_format=xml"
    got = await module_api.get(url)
    head = await module_api.http.head(url, headers=module_api.headers)
    assert (head.content, head.headers["content-length"]) == (b"", str(len(got.content)))


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (JSON, 201),
        ("application/json", 201),
        ("application/json; charset=UTF-8", 201),
        ("application/fhir+json; fhirVersion=4.0", 201),
        ("application/fhir+json; fhirVersion=3.0", 415),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
    ],
)
async def test_content_type_of_bodies(module_api: Api, patient: dict[str, Any], sent: str, status: int) -> None:
    answer = await module_api.post("/fhir/Patient", patient, content_type=sent)
    assert answer.status_code == status, answer.text


async def test_compressed_bodies(module_api: Api, patient: dict[str, Any]) -> None:
    body = orjson.dumps(patient)
    for encoding, packed in (("gzip", gzip.compress(body)), ("zstd", zstandard.compress(body))):
        answer = await module_api.post("/fhir/Patient", packed, content_encoding=encoding)
        assert answer.status_code == 201, answer.text
        assert answer.json()["name"] == patient["name"]
    refused(await module_api.post("/fhir/Patient", body, content_encoding="gzip"), 400, "structure")
    refused(await module_api.post("/fhir/Patient", body, content_encoding="br"), 415, "not-supported")
    bomb = gzip.compress(bytes(100_000_000))
    refused(await module_api.post("/fhir/Patient", bomb, content_encoding="gzip"), 413, "too-long")


async def test_compressed_answers(module_api: Api, patient: dict[str, Any]) -> None:
    for _ in range(5):
        await module_api.create(patient)
    wrapped = Starlette(routes=[Mount("/", Compression(module_api.http._transport.app))])  # type: ignore[attr-defined]
    transport = httpx.ASGITransport(app=wrapped)
    async with httpx.AsyncClient(transport=transport, base_url=str(module_api.http.base_url)) as client:
        url = "/fhir/Patient?_count=5"
        plain = await client.get(url, headers={**module_api.headers, "accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        for asked, encoding in (("gzip", "gzip"), ("zstd", "zstd"), ("gzip;q=0.5, zstd;q=0.1", "gzip")):
            async with client.stream("GET", url, headers={**module_api.headers, "accept-encoding": asked}) as answer:
                raw = b"".join([part async for part in answer.aiter_raw()])
                assert answer.headers["content-encoding"] == encoding
                assert "accept-encoding" in answer.headers["vary"].lower()
                assert int(answer.headers["content-length"]) == len(raw) < len(plain.content) / 2
            unpack = gzip.decompress if encoding == "gzip" else zstandard.decompress
            assert orjson.loads(unpack(raw))["entry"] == plain.json()["entry"]
        small = await client.get("/fhir/Patient/nobody", headers={**module_api.headers, "accept-encoding": "gzip"})
        assert "content-encoding" not in small.headers


async def test_a_streamed_answer_in_xml(module_api: Api, patient: dict[str, Any]) -> None:
    created = await module_api.create(patient)
    url = f"/fhir/Patient/{created['id']}/$everything"
    plain = await module_api.get(url)
    xml = await module_api.get(f"{url}?_format=xml")
    assert xml.headers["content-type"].startswith(XML)
    assert len(etree.fromstring(xml.content).findall("{http://hl7.org/fhir}entry")) == len(plain.json()["entry"])


async def test_a_control_character_never_breaks_an_answer(module_api: Api) -> None:
    refused(await module_api.post("/fhir/Basic", {"resourceType": "Basic", "code": {"text": "a\u0001b"}}), 422, "value")
