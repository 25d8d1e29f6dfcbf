"""A granular scope selects by a query: on no path does anything else come out, nor can it be written or noticed.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#finer-grained-resource-constraints-using-search-parameters
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from tests.contract.fhir.api import Api, entry, observation, patient_resource, refused, running
from tests.contract.fhir.bulk_exports import ASYNC, exported, finished, lines

CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
QUERY = f"category={CATEGORY}|laboratory"
REPORTS = "{c}/DiagnosticReport.rs {c}/Patient.rs {c}/Provenance.rs {c}/Encounter.rs"
TOKENS = {
    "patient": ({"a-lab", "a-both"}, {"patient": "a"}),
    "user": ({"a-lab", "a-both", "b-lab"}, {}),
    "system": ({"a-lab", "a-both", "b-lab"}, {}),
}


def category(*codes: str) -> dict[str, Any]:
    return {"category": [{"coding": [{"system": CATEGORY, "code": code}]} for code in codes]} if codes else {}


def made(name: str, *codes: str, **more: Any) -> dict[str, Any]:
    """An Observation whose id starts with its patient's."""
    return {**observation(f"Patient/{name[0]}", code=f"code-{name}"), "id": name, **category(*codes), **more}


@dataclass
class Record:
    """A record, and a token that sees the laboratory only."""

    everyone: Api
    token: Api
    context: str
    seen: set[str]

    def as_(self, actions: str, query: str = QUERY, more: str = "") -> Api:
        claims = TOKENS[self.context][1]
        return self.everyone.as_(f"{self.context}/Observation.{actions}?{query} {more}", **claims)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def everyone(module_database_url: str, home: Path) -> AsyncIterator[Api]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(home))
        patch.setenv("FORAMEN_FHIR_JOB_POLL_S", "0.1")
        patch.setenv("FORAMEN_FHIR_EXPORT_SETTLE_S", "0.1")
        patch.setenv("FORAMEN_FHIR_EXPORT_POLLS_PER_S", "100")
        async with running(module_database_url) as (_, client):
            api = Api(client)
            await _fill(api)
            yield api


async def _fill(api: Api) -> None:
    for name in "ab":
        await api.put_ok({**patient_resource(), "id": name, "identifier": [{"value": f"SYNTHETIC-{name}"}]})
        visit = {"resourceType": "Encounter", "id": f"{name}-visit", "status": "finished", "class": {"code": "AMB"}}
        await api.put_ok({**visit, "subject": {"reference": f"Patient/{name}"}})
    await api.put_ok(made("a-lab", "laboratory", encounter={"reference": "Encounter/a-visit"}))
    await api.put_ok(made("a-both", "laboratory", "vital-signs"))
    await api.put_ok(made("a-vital", "vital-signs", encounter={"reference": "Encounter/a-visit"}))
    await api.put_ok(made("a-bare"))
    await api.put_ok(made("b-lab", "laboratory"))
    await api.put_ok(made("b-vital", "vital-signs"))
    await api.put_ok(made("a-moved", "laboratory"))  # It was of the laboratory once.
    await api.put_ok(made("a-moved", "vital-signs"))
    await api.put_ok(made("a-gone", "laboratory"))
    assert (await api.delete("/fhir/Observation/a-gone")).status_code == 204
    names = ("a-lab", "a-both", "a-vital", "a-bare", "a-moved")
    report = {"resourceType": "DiagnosticReport", "id": "a-report", "status": "final", "code": {"text": "SYNTHETIC"}}
    report |= {"subject": {"reference": "Patient/a"}, "result": [{"reference": f"Observation/{n}"} for n in names]}
    await api.put_ok(report)


@pytest.fixture(params=sorted(TOKENS))
def record(everyone: Api, request: pytest.FixtureRequest) -> Record:
    seen, claims = TOKENS[request.param]
    scope = f"{request.param}/Observation.rs?{QUERY} {REPORTS.format(c=request.param)}"
    return Record(everyone, everyone.as_(scope, **claims), request.param, seen)


def observations(answer: Any) -> set[str]:
    """Ids of the Observations that an answer holds, wherever they lie in it."""
    if isinstance(answer, list):
        return {name for item in answer for name in observations(item)}
    if not isinstance(answer, dict):
        return set()
    own = {answer["id"]} if answer.get("resourceType") == "Observation" else set()
    return own | observations(list(answer.values()))


PATHS = [
    "Observation",
    "Observation?_count=1000&_sort=-_lastUpdated",
    "Observation?_id=a-lab,a-both,a-vital,a-bare,b-lab,b-vital,a-moved,a-gone",
    "Observation?category:not=nonsense",
    "Observation?category=laboratory,vital-signs",
    "Observation?status=preliminary&_total=accurate",
    "Observation?_filter=status eq preliminary",
    "Observation?subject:Patient.identifier=SYNTHETIC-a,SYNTHETIC-b",
    "?_type=Observation",
    "Patient?_revinclude=Observation:subject",
    "Patient?_revinclude=*",
]
IN_RECORD_OF_A = [
    "Patient/a/Observation",
    "Patient/a/*?_type=Observation",
    "Patient/a/$everything",
    "Patient/a/$everything?_count=1000",
    "Observation/$lastn?patient=Patient/a&category=laboratory,vital-signs&max=99",
    "Observation/$lastn?patient=Patient/a&code:not=x&max=99",
    "DiagnosticReport?_include=DiagnosticReport:result",
    "DiagnosticReport?_include=*",
    "DiagnosticReport?_id=a-report&_include=DiagnosticReport:result&_include:iterate=Observation:has-member",
]


@pytest.mark.parametrize("path", PATHS)
async def test_searches_find_what_the_query_selects(record: Record, path: str) -> None:
    response = await record.token.get(f"/fhir/{path}")
    assert response.status_code == 200, response.text
    assert observations(response.json()) == record.seen
    if "total" in response.json() and path.startswith("Observation"):
        assert response.json()["total"] == len(record.seen)


@pytest.mark.parametrize("path", IN_RECORD_OF_A)
async def test_one_record_shows_what_the_query_selects(record: Record, path: str) -> None:
    response = await record.token.get(f"/fhir/{path}")
    assert response.status_code == 200, response.text
    assert observations(response.json()) == {"a-lab", "a-both"}


async def test_an_encounter_shows_what_the_query_selects(record: Record) -> None:
    for path in ("Encounter/a-visit/$everything", "Encounter/a-visit/Observation", "Encounter?_revinclude=*"):
        response = await record.token.get(f"/fhir/{path}")
        assert response.status_code == 200, response.text
        assert observations(response.json()) == {"a-lab"}


async def test_pages_and_counts_tell_of_nothing_else(record: Record) -> None:
    assert set(await record.token.ids("Observation?_count=1")) == record.seen
    for path in ("Observation?_summary=count", "Observation?_count=1&_total=accurate", "Observation?_total=estimate"):
        assert (await record.token.get(f"/fhir/{path}")).json()["total"] == len(record.seen)
    posted = await record.token.http.post(
        "/fhir/Observation/_search",
        content="_count=100",
        headers={**record.token.headers, "content-type": "application/x-www-form-urlencoded"},
    )
    assert observations(posted.json()) == record.seen


async def test_chains_lead_only_through_what_is_seen(record: Record) -> None:
    for name, found in (("a-lab", 1), ("a-vital", 0), ("a-moved", 0), ("no-such", 0)):
        for path in (
            f"DiagnosticReport?result:Observation.code=code-{name}",
            f"DiagnosticReport?result.code=code-{name}",
            f"Patient?_has:Observation:subject:code=code-{name}",
            f"Encounter?_has:Observation:encounter:code=code-{name}" if name != "a-moved" else "Encounter?_id=none",
            f"DiagnosticReport?_filter=result.code eq code-{name}",
        ):
            response = await record.token.get(f"/fhir/{path}&_summary=count")
            assert response.status_code == 200, response.text
            assert response.json()["total"] == (found if path != "Encounter?_id=none" else 0), path


async def test_what_is_hidden_reads_as_what_is_not_there(record: Record) -> None:
    hidden = {"a-vital", "a-bare", "b-vital", "a-moved", "a-gone"} | (
        {"b-lab"} if record.context == "patient" else set()
    )
    for name in record.seen:
        for suffix in ("", "/_history/1", "/_history"):
            assert (await record.token.get(f"/fhir/Observation/{name}{suffix}")).status_code == 200
    for suffix in ("", "/_history/2", "/$meta", "/$validate"):
        missing = await record.token.get(f"/fhir/Observation/no-such{suffix}")
        assert missing.status_code == 404
        for name in hidden:
            found = await record.token.get(f"/fhir/Observation/{name}{suffix}")
            assert (found.status_code, found.json()) == (404, missing.json()), (name, suffix)
    for name in hidden - {"a-moved", "a-gone"}:
        refused(await record.token.get(f"/fhir/Observation/{name}/_history"), 404, "not-found")


async def test_versions_are_looked_at_one_by_one(record: Record) -> None:
    for name in ("a-moved", "a-gone"):
        assert (await record.token.get(f"/fhir/Observation/{name}/_history/1")).status_code == 200
        assert (await record.token.get(f"/fhir/Observation/{name}/_history/2")).status_code == 404
        history = (await record.token.get(f"/fhir/Observation/{name}/_history")).json()
        assert [item["resource"]["meta"]["versionId"] for item in history["entry"]] == ["1"]
    for path in ("Observation/_history?_count=1000", "_history?_count=1000"):
        entries = (await record.token.get(f"/fhir/{path}")).json()["entry"]
        shown = [item for item in entries if "Observation/" in item["fullUrl"]]
        names = {item["fullUrl"].rpartition("/")[2] for item in shown}
        assert names == {*record.seen, "a-moved", "a-gone"}
        assert all("laboratory" in str(item["resource"]["category"]) for item in shown)


async def test_a_history_in_pages_shows_the_same(record: Record) -> None:
    whole = (await record.token.get("/fhir/Observation/_history?_count=1000")).json()["entry"]
    url: str | None = "/fhir/Observation/_history?_count=1"
    found = []
    while url is not None:
        page = (await record.token.get(url)).json()
        assert len(page["entry"]) == 1
        found += page["entry"]
        url = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)
    assert found == whole


async def test_bundles_answer_as_single_requests_do(record: Record) -> None:
    urls = [
        "Observation/a-lab",
        "Observation/a-vital",
        "Observation/a-moved/_history/2",
        "Observation",
        "Observation/_history",
    ]
    for kind in ("batch", "transaction"):
        asked = urls if kind == "batch" else [urls[0], *urls[3:]]
        answer = (await record.token.transaction(*(entry("GET", url) for url in asked), kind=kind)).json()["entry"]
        statuses = [item["response"]["status"][:3] for item in answer]
        assert statuses == (["200", "404", "404", "200", "200"] if kind == "batch" else ["200"] * 3)
        assert observations(answer[-2]) == record.seen
    refused(await record.token.transaction(entry("GET", urls[1])), 404, "not-found")


async def test_an_export_holds_what_the_query_selects(record: Record) -> None:
    path = "Patient/$export" if record.context == "patient" else "$export"
    manifest = await exported(record.token, f"{path}?_type=Observation,DiagnosticReport")
    rows = await lines(record.token, manifest)
    assert {row["id"] for row in rows["Observation"]} == record.seen
    narrower = record.as_("rs", f"{QUERY}&code=code-a-lab", REPORTS.format(c=record.context))
    kickoff = await record.token.get(f"/fhir/{path}?_type=Observation&_since=2000-01-01", **ASYNC)
    done = (await finished(record.token, kickoff)).json()
    assert done["deleted"] == []
    for url in (kickoff.headers["content-location"], done["output"][0]["url"]):
        assert (await narrower.get(url)).status_code == 403
        assert (await record.token.get(url)).status_code == 200


async def test_labels_in_use_are_those_of_what_is_seen(everyone: Api) -> None:
    tag = {"system": "urn:synthetic", "code": "hidden-label"}
    await everyone.put_ok(made("c-vital", "vital-signs", meta={"tag": [tag]}, subject={"display": "nobody"}))
    token = everyone.as_(f"system/Observation.rs?{QUERY}")
    for path in ("Observation/$meta", "$meta"):
        answer = await token.get(f"/fhir/{path}")
        assert answer.status_code == 200, answer.text
        assert "hidden-label" not in answer.text
    assert (await everyone.delete("/fhir/Observation/c-vital")).status_code == 204


async def test_what_the_query_does_not_select_cannot_be_written(record: Record) -> None:
    token = record.as_("cruds")
    inside, outside = made("a-new", "laboratory"), made("a-new", "vital-signs")
    refused(await token.post("/fhir/Observation", outside), 403, "forbidden")
    created = await token.create(inside)
    path, data = f"/fhir/Observation/{created['id']}", {**inside, "id": created["id"]}
    refused(await token.put(path, {**data, **category("vital-signs")}), 403, "forbidden")
    patch = [{"op": "replace", "path": "/category/0/coding/0/code", "value": "vital-signs"}]
    refused(await token.send("PATCH", path, patch, content_type="application/json-patch+json"), 403, "forbidden")
    assert (await token.put(path, {**data, "status": "final"})).status_code == 200
    entries = [entry("POST", "Observation", inside), entry("POST", "Observation", outside)]
    refused(await token.transaction(*entries), 403, "forbidden")
    answers = (await token.transaction(*entries, kind="batch")).json()["entry"]
    assert [item["response"]["status"][:3] for item in answers] == ["201", "403"]
    assert (await token.delete(path)).status_code == 204
    await record.everyone.delete(
        f"/fhir/Observation/{answers[0]['response']['location'].split('Observation/')[1].split('/')[0]}"
    )


async def test_what_is_hidden_cannot_be_changed_or_noticed(record: Record) -> None:
    token = record.as_("cruds")
    before = [(await record.everyone.get(f"/fhir/Observation/{name}")).text for name in ("a-vital", "a-gone")]
    for name in ("a-vital", "a-gone", "no-such"):
        path, body = f"/fhir/Observation/{name}", {**made("a-lab", "laboratory"), "id": name}
        refused(await token.put(path, body), 404, "not-found")
        refused(await token.delete(path), 404, "not-found")
        patch = [{"op": "replace", "path": "/status", "value": "final"}]
        refused(await token.send("PATCH", path, patch, content_type="application/json-patch+json"), 404, "not-found")
        refused(
            await token.post(
                f"{path}/$meta-add",
                {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [{"code": "x"}]}}]},
            ),
            404,
            "not-found",
        )
        condition = f"/fhir/Observation?_id={name}"
        refused(await token.put(condition, {**body, "id": name}), 404, "not-found")
        assert (await token.delete(condition)).status_code == 204
    after = [(await record.everyone.get(f"/fhir/Observation/{name}")).text for name in ("a-vital", "a-gone")]
    assert after == before
    new = await token.post("/fhir/Observation", made("a-extra", "laboratory"), if_none_exist="code=code-a-vital")
    assert new.status_code == 201  # The hidden one is not found; it would have been 200.
    await record.everyone.delete(f"/fhir/Observation/{new.json()['id']}")


@pytest.mark.parametrize(
    "query",
    [
        "nonsense=1",
        "category:nonsense=laboratory",
        "subject.name=x",
        "_has:Observation:subject:code=x",
        "category:in=http://example.org/ValueSet/x",
        "code:below=http://snomed.info/sct|1",
        "_filter=status eq final",
        "_content=x",
        "_list=5",
        "_count=5",
        "_sort=date",
        "_include=*",
        "date=nonsense",
        "category=",
        "category",
        "",
        "&",
    ],
)
async def test_what_is_not_understood_grants_nothing(everyone: Api, query: str) -> None:
    for context in ("system", "user"):
        token = everyone.as_(f"{context}/Observation.rs?{query.replace(' ', '%20')}")
        for path in (
            "Observation",
            "Observation/a-lab",
            "Observation/a-lab/_history/1",
            "Observation/_history",
            "_history",
        ):
            refused(await token.get(f"/fhir/{path}"), 403, "forbidden")


async def test_scopes_add_up(everyone: Api) -> None:
    lab, vital = (f"patient/Observation.rs?category={CATEGORY}|{code}" for code in ("laboratory", "vital-signs"))
    both = everyone.as_(f"{lab} {vital}", patient="a")
    assert set(await both.ids("Observation")) == {"a-lab", "a-both", "a-vital", "a-moved"}
    own = everyone.as_(f"patient/Observation.rs user/Observation.rs?{QUERY}", patient="b")
    assert set(await own.ids("Observation")) == {"a-lab", "a-both", "b-lab", "b-vital"}
    for name, status in (("a-lab", 200), ("b-vital", 200), ("a-vital", 404)):
        assert (await own.get(f"/fhir/Observation/{name}")).status_code == status
    assert set(await everyone.as_(f"{lab} user/Observation.rs", patient="a").ids("Observation")) >= {
        "b-vital",
        "a-bare",
    }
    narrow = everyone.as_(f"patient/Observation.rs?{QUERY}&status=final", patient="a")
    assert await narrow.ids("Observation") == []
    every = everyone.as_("patient/*.rs?_id=a-lab,a", patient="a")
    assert await every.ids("Observation") == ["a-lab"]
    assert await every.ids("Patient") == ["a"]
    assert observations((await every.get("/fhir/Patient/a/$everything")).json()) == {"a-lab"}


async def test_the_action_decides_which_query_counts(everyone: Api) -> None:
    token = everyone.as_(f"user/Observation.s user/Observation.r?{QUERY} user/Observation.u?status=final", patient="a")
    assert {"a-vital", "b-lab"} <= set(await token.ids("Observation"))
    assert (await token.get("/fhir/Observation/a-vital")).status_code == 404
    assert (await token.get("/fhir/Observation/a-lab")).status_code == 200
    refused(await token.put("/fhir/Observation/a-lab", made("a-lab", "laboratory")), 404, "not-found")


async def test_a_binary_that_names_a_resource_needs_a_scope_without_a_query(everyone: Api) -> None:
    binary = {"resourceType": "Binary", "contentType": "text/plain", "data": "U1lO"}
    await everyone.put_ok({**binary, "id": "of-a-lab", "securityContext": {"reference": "Observation/a-lab"}})
    token = everyone.as_(f"user/Binary.rs user/Observation.rs?{QUERY}")
    assert (await token.get("/fhir/Binary/of-a-lab")).status_code == 404  # What it names cannot be looked at from it.
    assert await token.ids("Binary") == []
    assert (await everyone.as_("user/Binary.rs user/Observation.rs").get("/fhir/Binary/of-a-lab")).status_code == 200


async def test_an_import_needs_a_scope_without_a_query(everyone: Api) -> None:
    token = everyone.as_(f"system/Observation.cruds?{QUERY} system/Patient.cruds foramen/admin")
    body = orjson.dumps(made("a-import", "laboratory"))
    kickoff = await token.post("/fhir/$import", body, content_type="application/fhir+ndjson")
    done = (await finished(token, kickoff)).json()
    assert done["refused"] == 1, done
    assert (await everyone.get("/fhir/Observation/a-import")).status_code == 404


async def test_explain_names_the_rule(everyone: Api) -> None:
    token = everyone.as_(f"system/Observation.rs?{QUERY} foramen/admin")
    answer = await token.get("/fhir/Observation?_explain=true")
    assert answer.status_code == 200, answer.text
    assert "granular scope" in answer.text
    assert "laboratory" not in answer.text
