"""Every version of a Binary is judged by what its own content names, however it was indexed once. All SYNTHETIC.

https://hl7.org/fhir/R4/binary.html#security
"""

from __future__ import annotations

from typing import Any

import orjson
import psycopg
import pytest

from fhir_server.access.policy import Access
from fhir_server.bulk.seen import looks_inside, seen
from foramen.kernel.access_context import AccessContext, parse_scopes
from tests.builders.tokens import ORIGIN
from tests.contract.fhir.api import Api, patient_resource, refused, running
from tests.contract.fhir.test_binary_security import _binary, _consent


def _line(context: str | None) -> bytes:
    meta = {"versionId": "1", "lastUpdated": "2026-01-05T10:00:00.000Z"}
    return orjson.dumps({**_binary("b", context), "meta": meta})


def _access(scope: str, **more: Any) -> Access:
    return Access(AccessContext("tester", "test", parse_scopes(scope), **more), own_url=f"{ORIGIN}/fhir")


async def test_versions_that_were_indexed_without_their_context_are_hidden_too(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORAMEN_FHIR_CONSENT", "true")
    async with running(database_url) as (_, client):
        api = Api(client)
        await api.put_ok({**patient_resource(), "id": "p1"})
        for data in ("U1lO", "VFdP"):
            await api.put_ok({**_binary("b1", "Patient/p1"), "data": data})
        with psycopg.connect(database_url) as connection:  # As a server wrote them that did not know contexts yet.
            connection.execute("UPDATE fhir.history SET patients = '{}' WHERE type = 'Binary'")
        narrow = api.as_("user/Binary.rs")
        await api.put_ok(_consent("p1", "Practitioner/dr1"))
        closed = api.as_("user/*.rs", fhirUser="Practitioner/dr1")
        for caller in (narrow, closed):
            refused(await caller.get("/fhir/Binary/b1/_history/1"), 404, "not-found")
            refused(await caller.get("/fhir/Binary/b1/_history"), 404, "not-found")
            for path in ("Binary/_history", "_history"):
                entries = (await caller.get(f"/fhir/{path}")).json().get("entry", [])
                assert not [item for item in entries if "/Binary/" in item["fullUrl"]]
        own = api.as_("patient/*.rs", patient="p1")
        assert (await own.get("/fhir/Binary/b1/_history")).json()["entry"]
        assert len((await api.get("/fhir/Binary/b1/_history")).json()["entry"]) == 2


@pytest.mark.parametrize(
    ("access", "shown"),
    [
        (_access("patient/*.rs", patient="p1"), {"Patient/p1", f"{ORIGIN}/fhir/Patient/p1", None}),
        (_access("user/Binary.rs"), {None}),
        (_access("user/Binary.rs user/Observation.rs"), {None, "Observation/o1"}),
    ],
)
def test_a_line_of_an_export_is_judged_by_what_it_names(access: Access, shown: set[str | None]) -> None:
    keep = seen(access, "Binary")
    assert keep is not None
    contexts = (None, "Patient/p1", f"{ORIGIN}/fhir/Patient/p1", "Patient/p2", "Observation/o1", "urn:elsewhere")
    assert {context for context in contexts if keep(_line(context)) is not None} == shown


def test_who_sees_everything_needs_no_look() -> None:
    assert seen(_access("system/*.rs"), "Binary") is None
    assert not looks_inside(_access("system/*.rs"), ("Binary", "Observation"))
