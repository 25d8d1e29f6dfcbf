"""Hostile and broken requests: each gets 4xx with a fitting issue code, in bounded time, and leaves no trace.

https://hl7.org/fhir/R4/security.html#narrative, OWASP API Security Top 10 (unrestricted resource consumption)
"""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import asyncpg
import orjson
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.fhir.api import Api, entry, observation, patient_resource

_MOST_S = 6.0  # Of CPU, while every allocation is traced, which costs two thirds of it.
_MOST_BYTES = 200_000_000
_DEEP = 100_000
_COUNTED = ("resource", "history", "posting", "date_value", "string_value", "number_value")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def database(module_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(module_database_url)
    yield connection
    await connection.close()


async def _rows(database: asyncpg.Connection) -> dict[str, int]:
    """Entries of each table that are not an AuditEvent's."""
    counts = {}
    for table in _COUNTED:
        keep = "t.type <> 'AuditEvent'"
        if table not in ("resource", "history"):
            keep = "EXISTS (SELECT FROM fhir.resource r WHERE r.row = t.row AND r.type <> 'AuditEvent')"
        counts[table] = await database.fetchval(f"SELECT count(*) FROM fhir.{table} t WHERE {keep}")  # noqa: S608
    return counts


def _check(response: Any, *codes: str) -> dict[str, Any]:
    """4xx with an OperationOutcome that quotes nothing of ours; returns it."""
    assert 400 <= response.status_code < 500, (response.status_code, response.text[:500])
    outcome: dict[str, Any] = response.json()
    assert outcome["resourceType"] == "OperationOutcome"
    assert outcome["issue"]
    if codes:
        assert outcome["issue"][0]["code"] in codes, outcome
    for word in ("Traceback", "asyncpg", 'File "', "SELECT ", "site-packages"):
        assert word not in response.text
    return outcome


class _Bounded:
    """Fails when the work inside takes too long, or too much memory."""

    def __enter__(self) -> None:
        tracemalloc.start()
        self._began = time.process_time()

    def __exit__(self, *failure: object) -> None:
        used, peak = time.process_time() - self._began, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if failure[0] is None:
            assert used < _MOST_S, used
            assert peak < _MOST_BYTES, peak


def _nested(depth: int) -> bytes:
    return b'{"resourceType":"Patient","extension":' + b'[{"extension":' * depth + b"[]" + b"}]" * depth + b"}"


_BOMBS: list[tuple[str, str, bytes, tuple[str, ...]]] = [
    ("nested lists", "POST Patient", b"[" * _DEEP, ("structure", "too-long")),
    ("closed nested lists", "POST Patient", b"[" * _DEEP + b"]" * _DEEP, ("too-long",)),
    ("nested objects", "POST Patient", b'{"a":' * _DEEP + b"1" + b"}" * _DEEP, ("too-long",)),
    ("nested extensions", "PUT Patient/x", _nested(2000), ("too-long",)),
    ("just too deep", "POST Patient", _nested(40), ("too-long",)),
    ("brackets in strings do not count", "POST Nonsense", b'{"a":"' + b"[" * 1000 + b'"}', ("not-found",)),
    ("nested bundle", "POST ", b'{"resourceType":"Bundle","entry":' + b"[" * _DEEP, ("structure", "too-long")),
    ("a large number", "POST Patient", b'{"resourceType":"Patient","x":' + b"9" * 500_000 + b"}", ()),
    ("a large exponent", "POST Basic", b'{"resourceType":"Basic","code":{"text":"x"},"x":1e999999999}', ()),
    ("wide", "POST Patient", b'{"resourceType":"Patient",' + b'"x":1,' * 200_000 + b'"y":1}', ()),
    ("many issues", "POST Patient", orjson.dumps({"resourceType": "Patient", "name": [{"q": 1}] * 50_000}), ()),
    ("parameters", "POST Patient/$meta", b'{"resourceType":"Parameters","parameter":' + b"[" * _DEEP, ()),
    ("no JSON", "POST Patient", b"resourceType=Patient", ("structure",)),
    ("empty", "POST Patient", b"", ("structure", "required", "invalid")),
    ("null", "POST Patient", b"null", ("structure",)),
    ("a list", "POST Patient", b"[]", ("structure",)),
    ("a string", "POST Patient", b'"Patient"', ("structure",)),
    ("truncated", "POST Patient", b'{"resourceType":"Patient","name":[{"family":"SYN', ("structure",)),
    ("two documents", "POST Patient", b'{"resourceType":"Patient"}{"resourceType":"Patient"}', ("structure",)),
    ("comments", "POST Patient", b'{"resourceType":"Patient" /* x */}', ("structure",)),
    ("NaN", "POST Patient", b'{"resourceType":"Patient","multipleBirthInteger":NaN}', ("structure",)),
    ("invalid UTF-8", "POST Patient", b'{"resourceType":"Patient","language":"\xff\xfe"}', ("structure",)),
    ("overlong UTF-8", "POST Patient", b'{"resourceType":"Patient","language":"\xc0\xaf"}', ("structure",)),
    ("lone surrogate", "POST Patient", b'{"resourceType":"Patient","language":"\\ud800"}', ()),
    ("NUL", "POST Patient", b'{"resourceType":"Patient","name":[{"family":"a\\u0000b"}]}', ()),
    ("UTF-16", "POST Patient", '{"resourceType":"Patient"}'.encode("utf-16"), ("structure",)),
    ("a duplicate key", "POST Patient", b'{"resourceType":"Patient","active":true,"active":false}', ("structure",)),
    (
        "a duplicate deep",
        "POST Patient",
        b'{"resourceType":"Patient","name":[{"text":"a","text":"b"}]}',
        ("structure",),
    ),
    ("two types", "POST Patient", b'{"resourceType":"Patient","resourceType":"Practitioner"}', ()),
    ("another type", "POST Patient", b'{"resourceType":"Practitioner"}', ()),
    ("no type", "POST Patient", b"{}", ("structure", "required")),
    ("type of a wrong type", "POST Patient", b'{"resourceType":["Patient"]}', ("structure",)),
    ("an id that climbs", "PUT Patient/x", b'{"resourceType":"Patient","id":"../../etc"}', ()),
    ("a wrong date", "POST Patient", b'{"resourceType":"Patient","birthDate":"2026-02-30"}', ("value",)),
    ("no date", "POST Patient", b'{"resourceType":"Patient","birthDate":"yesterday"}', ("value",)),
    ("year zero", "POST Patient", b'{"resourceType":"Patient","birthDate":"0000-01-01"}', ("value",)),
    ("a wrong kind", "POST Patient", b'{"resourceType":"Patient","active":"true"}', ()),
    ("text for a list", "POST Patient", b'{"resourceType":"Patient","name":"x"}', ()),
    ("no bundle", "POST ", b'{"resourceType":"Patient"}', ("structure",)),
    ("bundle of no kind", "POST ", b'{"resourceType":"Bundle"}', ("value", "required", "structure")),
    ("entries of a wrong kind", "POST ", b'{"resourceType":"Bundle","type":"batch","entry":{"a":1}}', ("structure",)),
    ("null entries", "POST ", b'{"resourceType":"Bundle","type":"transaction","entry":[null]}', ("structure",)),
    ("parameters of no kind", "POST Patient/$meta", b'{"resourceType":"Parameters","parameter":7}', ()),
]


@pytest.mark.parametrize(("target", "body", "codes"), [b[1:] for b in _BOMBS], ids=[b[0] for b in _BOMBS])
async def test_bodies(
    module_api: Api, database: asyncpg.Connection, target: str, body: bytes, codes: tuple[str, ...]
) -> None:
    before = await _rows(database)
    method, path = target.split(" ")
    with _Bounded():
        _check(await module_api.send(method, f"/fhir/{path}", body), *codes)
    assert await _rows(database) == before


async def test_a_body_larger_than_the_limit(module_api: Api, database: asyncpg.Connection) -> None:
    before = await _rows(database)
    body = b'{"resourceType":"Patient","language":"' + b"x" * 40_000_000 + b'"}'
    response = await module_api.post("/fhir/Patient", body)
    assert response.status_code in (413, 422), response.text[:300]

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1_000_000):
            yield b" " * 65_536

    headers = {**module_api.headers, "content-type": "application/fhir+json"}
    with _Bounded():
        response = await module_api.http.post("/fhir/Patient", content=endless(), headers=headers)
    _check(response, "too-long")
    assert response.status_code == 413
    assert await _rows(database) == before


_ENTITIES = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "SYNTHETIC">%s]>
<Patient xmlns="http://hl7.org/fhir"><language value="&%s;"/></Patient>"""
_LAUGHS = b"".join(
    b'<!ENTITY %s "%s">' % (name, b"&%s;" % before * 10)
    for before, name in zip(b"abcdefgh", b"bcdefghi", strict=True)
    for before, name in [(bytes([before]), bytes([name]))]
)
_XML = [
    ("entity bomb", _ENTITIES % (_LAUGHS, b"i")),
    ("file entity", _ENTITIES % (b'<!ENTITY f SYSTEM "file:///etc/hostname">', b"f")),
    ("remote entity", _ENTITIES % (b'<!ENTITY r SYSTEM "http://127.0.0.1:9/x">', b"r")),
    ("remote DTD", b'<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x"><Patient xmlns="http://hl7.org/fhir"/>'),
    ("deep", b'<Patient xmlns="http://hl7.org/fhir">' + b'<extension url="x">' * 20_000),
    ("closed deep", b'<Patient xmlns="http://hl7.org/fhir">' + b"<a>" * 9_000 + b"</a>" * 9_000 + b"</Patient>"),
    ("truncated", b'<Patient xmlns="http://hl7.org/fhir"><name>'),
    ("another namespace", b'<Patient xmlns="http://example.com"/>'),
    ("binary", bytes(range(256))),
    ("processing", b'<?xml-stylesheet href="x"?><Patient xmlns="http://hl7.org/fhir"><x/></Patient>'),
]


@pytest.mark.parametrize("body", [item[1] for item in _XML], ids=[item[0] for item in _XML])
async def test_xml(module_api: Api, database: asyncpg.Connection, body: bytes) -> None:
    before = await _rows(database)
    with _Bounded():
        _check(await module_api.post("/fhir/Patient", body, content_type="application/fhir+xml"))
    assert await _rows(database) == before


async def test_patch_bombs(module_api: Api, database: asyncpg.Connection) -> None:
    await module_api.put_ok({**patient_resource(), "id": "ba1"})
    before = await _rows(database)
    doubling = [{"op": "copy", "from": "/name", "path": "/name/-"} for _ in range(40)]
    patches: list[Any] = [
        [
            {"op": "add", "path": "/name/0/given", "value": ["x" * 100_000]},
            *[{"op": "copy", "from": "/name/0", "path": "/name/-"} for _ in range(5_000)],
        ],
        doubling,
        [{"op": "test", "path": "/" + "a/" * 100_000, "value": 1}],
        [{"op": "add", "path": "/name/99999999999999999999", "value": {}}],
        [{"op": "add", "path": "/name/-1", "value": {}}],
        [{"op": "replace", "path": "/id", "value": "other"}],
        [{"op": "explode", "path": "/name"}],
        [{"op": "move", "from": "/name", "path": "/name/0"}],
        {"op": "add"},
        [7],
        None,
    ]
    for patch in patches:
        with _Bounded():
            _check(
                await module_api.send(
                    "PATCH", "/fhir/Patient/ba1", orjson.dumps(patch), content_type="application/json-patch+json"
                )
            )
    merge = b'{"contact":' * 5_000 + b"1" + b"}" * 5_000
    _check(await module_api.send("PATCH", "/fhir/Patient/ba1", merge, content_type="application/merge-patch+json"))
    assert await _rows(database) == before


_LONG = ",".join(f"v{number}" for number in range(20_000))
_QUERIES = [
    ("OR list", f"Patient?identifier={','.join('x' * 1 for _ in range(30_000))}", ("too-costly", "too-long")),
    ("many parameters", "Patient?" + "&".join(f"name=a{number}" for number in range(900)), ("too-costly",)),
    ("too many fields", "Patient?" + "&".join("a=1" for _ in range(5_000)), ()),
    ("long chain", "Observation?" + "has-member:Observation." * 30 + "code=x", ("too-costly",)),
    ("nested _has", "Patient?" + "_has:Observation:patient:" * 1 + "_has:Observation:has-member:" * 20 + "code=x", ()),
    ("count", "Patient?_count=99999999999999999999", ("value",)),
    ("negative count", "Patient?_count=-1", ("value",)),
    ("unicode digits", "Patient?_count=" + quote("٣"), ("value",)),
    ("sort of everything", "Patient?_sort=" + ",".join(["name"] * 5_000), ()),
    ("bad date", "Patient?birthdate=2026-13-45", ("value",)),
    ("a date beyond time", "Patient?birthdate=99999-01-01", ("value",)),
    ("prefix alone", "Patient?birthdate=ge", ("value",)),
    ("infinite number", "Observation?value-quantity=1e999", ("value",)),
    ("no number", "Observation?value-quantity=five", ("value",)),
    ("NaN", "Observation?value-quantity=nan", ("value",)),
    ("NUL", "Patient?name=a%00b", ("value",)),
    ("NUL in a name", "Patient?na%00me=a", ("value",)),
    ("invalid UTF-8", "Patient?name=%ff%fe", ("value",)),
    ("lone surrogate", "Patient?name=%ed%a0%80", ("value",)),
    ("a damaged cursor", "Patient?_cursor=AAAA", ("value",)),
    ("a forged cursor", "Patient?_cursor=WyJhIiwiYiIsImMiLCJkIl0", ("value",)),
    ("a nested cursor", "Patient?_cursor=" + "W1tbW1tb" * 1000, ("value", "too-long")),
    ("an unknown modifier", "Patient?name:nonsense=x", ("not-supported",)),
    ("_include of nothing", "Patient?_include=Nonsense:x", ("value",)),
    ("_include of a wrong form", "Patient?_include=" + ":" * 500, ("value",)),
    ("_has of nothing", "Patient?_has:a=1", ("value",)),
    ("_summary", "Patient?_summary=much", ("value",)),
    ("_total", "Patient?_total=all", ("value",)),
    ("_elements of a path", "Patient/_search?_elements=" + "../" * 100, ()),
    ("_format", "Patient?_format=text/nonsense", ("not-supported",)),
    ("history", "Patient/_history?_since=never", ("value",)),
    ("history count", "_history?_count=x", ("value",)),
    ("history cursor", "Patient/_history?_cursor=WzEsMiwzLDRd", ("value",)),
    ("everything", "Patient/x/$everything?_count=" + "9" * 30, ("value",)),
    ("_filter", "Patient?_filter=" + "(" * 5_000, ()),
    ("_filter that does not end", "Patient?_filter=name%20eq%20%22", ()),
]


@pytest.mark.parametrize(("path", "codes"), [q[1:] for q in _QUERIES], ids=[q[0] for q in _QUERIES])
async def test_queries(module_api: Api, path: str, codes: tuple[str, ...]) -> None:
    with _Bounded():
        _check(await module_api.get(f"/fhir/{path}"), *codes)


async def test_a_million_values_in_a_form(module_api: Api) -> None:
    form = b"identifier=" + b"x," * 1_000_000
    with _Bounded():
        _check(await module_api.post("/fhir/Patient/_search", form, content_type="application/x-www-form-urlencoded"))
    with _Bounded():
        body = b"identifier=" + b"x," * 400_000 + b"x"
        answer = await module_api.post("/fhir/Patient/_search", body, content_type="application/x-www-form-urlencoded")
    _check(answer, "too-costly")


_SQL = ["' OR '1'='1", "'; DROP TABLE fhir.resource; --", "$1", "%s", "x\\'); SELECT pg_sleep(10); --", "{0}", "${x}"]


@pytest.mark.parametrize("text", _SQL)
async def test_values_that_look_like_sql_match_nothing(
    module_api: Api, database: asyncpg.Connection, text: str
) -> None:
    await module_api.put_ok({**patient_resource(), "id": "ba2"})
    before = await _rows(database)
    value = quote(text, safe="")
    for query in (
        "name",
        "name:contains",
        "name:exact",
        "identifier",
        "_id",
        "organization",
        "general-practitioner.name",
    ):
        response = await module_api.get(f"/fhir/Patient?{query}={value}")
        assert response.status_code in (200, 400), response.text
        if response.status_code == 200:
            assert not [e for e in response.json().get("entry", []) if e["search"]["mode"] == "match"]
    _check(await module_api.get(f"/fhir/Patient?_sort={value}"))
    _check(await module_api.get(f"/fhir/Patient/{value}"))
    assert await _rows(database) == before


_PATHS = [
    "..", "../metadata", "%2e%2e/%2e%2e/etc/passwd", "Patient/%2e%2e", "Patient/../Observation/x/y",
    "Patient/a%2fb/c%2fd", "Patient%2f..%2f..", "Patient/a%00b", "Patient/%00", "Patient/x%0d%0aX-Header:1",
    "patient/x",
    "PATIENT", "Patient/x/_history/..", "Patient/x/_history/-1", "Patient/x/_history/99999999999999999999",
    "Patient/x/_history/1/2/3", "Patient/$nonsense", "$nonsense", "Patient/x/$", "$", "Patient/" + "x" * 65,
    "Patient/" + "x" * 5_000, "Patient/ü", "Patient/x%20y", "Patient/x;y", "DomainResource/x", "Resource", "Nonsense",
    "Patient/x/Nonsense", "__proto__", "constructor", "_", "$$", "Patient/*", "*/x", "{type}/{id}", "Patient/{id}",
    "$bulk-status/..%2f..", "$bulk-file/%2e%2e%2fetc%2fpasswd", "metadata/x",
]  # fmt: skip


@pytest.mark.parametrize("path", _PATHS)
async def test_paths(module_api: Api, path: str) -> None:
    response = await module_api.get(f"/fhir/{path}")
    assert 400 <= response.status_code < 500, (response.status_code, response.text[:300])
    if response.headers["content-type"].startswith("application/fhir+json"):
        _check(response)
    assert "x-header" not in response.headers


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "OPTIONS", "PURGE", "get", "G" * 1000])
async def test_odd_methods(module_api: Api, method: str) -> None:
    for path in ("", "Patient", "Patient/x", "metadata"):
        response = await module_api.send(method, f"/fhir/{path}", b"")
        if method.upper() != "GET":
            _check(response)
            assert response.status_code == 405


async def test_header_tricks(module_api: Api, database: asyncpg.Connection) -> None:
    await module_api.put_ok({**patient_resource(), "id": "ba3"})
    before = await _rows(database)
    body = {**patient_resource(), "id": "ba3"}
    for name, value in (
        ("if_match", 'W/"' + "9" * 400 + '"'),
        ("if_match", "nonsense"),
        ("if_match", 'W/"-1"'),
        ("content_type", "text/html"),
        ("content_type", "application/fhir+json; charset=utf-7"),
        ("content_type", "application/fhir+json; fhirVersion=9.9"),
        ("accept", "text/html"),
        ("if_none_exist", ""),
    ):
        if name == "if_none_exist":
            continue
        _check(await module_api.put("/fhir/Patient/ba3", body, **{name: value}))
    _check(await module_api.post("/fhir/Patient", patient_resource(), if_none_exist="nonsense=1"))
    _check(
        await module_api.post("/fhir/Patient", patient_resource(), if_none_exist="identifier=" + "x," * 10_000 + "x")
    )
    assert await _rows(database) == before


async def test_conditions_that_are_too_wide(module_api: Api, database: asyncpg.Connection) -> None:
    for place in range(3):
        await module_api.put_ok({**patient_resource(), "id": f"ba4{place}", "active": False})
    before = await _rows(database)
    _check(await module_api.delete("/fhir/Patient?active=false"), "multiple-matches", "too-costly")
    _check(await module_api.put("/fhir/Patient?active=false", patient_resource()), "multiple-matches")
    for query in ("", "?", "?_format=json"):
        _check(await module_api.delete(f"/fhir/Patient{query}"))
        _check(await module_api.put(f"/fhir/Patient{query}", patient_resource()))
    assert await _rows(database) == before


async def test_transactions_leave_nothing(module_api: Api, database: asyncpg.Connection) -> None:
    before = await _rows(database)
    good = entry("POST", "Patient", patient_resource(), full_url="urn:uuid:00000000-0000-4000-8000-000000000001")
    bad: list[dict[str, Any]] = [
        entry("POST", "Patient", {"resourceType": "Patient", "gender": "purple"}),
        entry("POST", "Nonsense", {"resourceType": "Nonsense"}),
        entry("EXPLODE", "Patient"),
        entry("GET", "Patient/none"),
        entry("GET", "Patient?name:nonsense=1"),
        entry("PUT", "Patient/../x", patient_resource()),
        entry("PUT", "Patient/" + "x" * 100, {**patient_resource(), "id": "x" * 100}),
        entry("POST", "Observation", observation("Patient?identifier=none|none")),
        entry("PUT", "Patient/x", {**patient_resource(), "id": "y"}),
        entry("DELETE", ""),
        {"request": {"method": "POST"}},
        {"resource": patient_resource()},
        {"request": "POST Patient"},
        {"fullUrl": 7, "request": {"method": "POST", "url": ["Patient"]}, "resource": []},
        {},
    ]
    for item in bad:
        _check(await module_api.transaction(good, item))
    _check(await module_api.transaction(*[entry("GET", "Patient/x") for _ in range(10_001)]))
    assert await _rows(database) == before


async def test_cycles_of_references_end(module_api: Api) -> None:
    for name, other in (("ba5a", "ba5b"), ("ba5b", "ba5a")):
        await module_api.put_ok(
            {"resourceType": "Location", "id": name, "partOf": {"reference": f"Location/{other}"}, "name": "SYNTHETIC"}
        )
    await module_api.put_ok({"resourceType": "Location", "id": "ba5c", "partOf": {"reference": "Location/ba5c"}})
    for query in (
        "_id=ba5a&_include=Location:partof&_include:iterate=Location:partof&_revinclude:iterate=Location:partof",
        "_id=ba5c&_include:iterate=*&_revinclude:iterate=*",
        "partof:below=Location/ba5a",
        "partof:above=Location/ba5a",
        "partof.partof.partof._id=ba5b",
    ):
        with _Bounded():
            response = await module_api.get(f"/fhir/Location?{query}")
        assert response.status_code in (200, 400), (query, response.text)


_TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
_SETTINGS = settings(
    max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)
_NAMES = st.sampled_from(["name", "birthdate", "identifier", "_id", "_lastUpdated", "organization", "_sort", "_count"])


@given(data=st.data())
@_SETTINGS
async def test_any_query_is_answered_or_refused(module_api: Api, data: st.DataObject) -> None:
    pairs = data.draw(st.lists(st.tuples(_NAMES | _TEXT, _TEXT), max_size=5))
    query = "&".join(f"{quote(name, safe=':')}={quote(value)}" for name, value in pairs)
    response = await module_api.get(f"/fhir/Patient?{query}")
    assert response.status_code in (200, 400, 406), (query, response.text)


@given(data=st.data())
@_SETTINGS
async def test_any_body_is_refused_or_comes_back_equal(module_api: Api, data: st.DataObject) -> None:
    members = data.draw(st.dictionaries(st.sampled_from(["name", "active", "extension", "id", "x"]) | _TEXT, _JSON))
    members.pop("resourceType", None)
    body = json.dumps({"resourceType": "Patient", **members}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    response = await module_api.post("/fhir/Patient", body)
    if response.status_code == 201:
        stored = response.json()
        assert {k: v for k, v in stored.items() if k not in ("id", "meta")} == {
            "resourceType": "Patient",
            **{k: v for k, v in members.items() if k not in ("id", "meta")},
        }
    else:
        _check(response)


@given(text=st.binary(max_size=300))
@_SETTINGS
async def test_any_bytes_are_refused(module_api: Api, text: bytes) -> None:
    for method, path in (("POST", "Patient"), ("POST", ""), ("PUT", "Patient/x"), ("POST", "Patient/$meta-add")):
        if text or "$" not in path:
            _check(await module_api.send(method, f"/fhir/{path}", text))
