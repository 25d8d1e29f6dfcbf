"""The page of what archive and index disagree about."""

from __future__ import annotations

import psycopg

from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import Gateway


async def test_the_drift_page_is_for_those_who_keep_the_archive(gateway: Gateway, module_database_url: str):
    for scope, claims in (
        ("patient/Task.cruds patient/ImagingStudy.cruds", {"patient": "mine"}),
        ("user/Task.cruds user/ImagingStudy.cruds", {"fhirUser": "Practitioner/one"}),  # Of one institution.
        ("system/ImagingStudy.cruds", {}),
    ):
        refused = await gateway.get("/drift", scope=scope, **claims)
        assert (refused.status_code, refused.json()["issue"][0]["code"]) == (403, "forbidden")
    with psycopg.connect(module_database_url) as connection:
        connection.execute(
            "INSERT INTO dicomweb.drift (study_instance_uid, kind, state, instances, trace_id)"
            " VALUES ('1.2.826.0.1.99', 'missing-in-archive', 'open', 3, %s)",
            ("0" * 32,),
        )
        connection.commit()
    chinese = await gateway.get("/drift", scope="foramen/admin", accept="text/html")
    assert chinese.status_code == 200
    assert chinese.headers["cache-control"] == "no-store"
    assert "1.2.826.0.1.99" in chinese.text
    assert '<html lang="zh-CN">' in chinese.text
    assert 'href="?lang=en"' in chinese.text
    english = await gateway.get("/drift?lang=en", scope="foramen/admin", accept="text/html")
    assert "Waiting for a person" in english.text
    data = (await gateway.get("/drift", scope="foramen/admin", accept="application/json")).json()
    assert "1.2.826.0.1.99" in [one["study"] for one in data["waiting"]]
    assert (await gateway.get("/drift?lang=fr", scope="foramen/admin")).status_code == 400
    trace = "a1" * 16
    headers = bearer("foramen/admin") | {"traceparent": f"00-{trace}-{'b2' * 8}-01"}
    assert (await gateway.http.get("/drift", headers=headers)).status_code == 200
    events = await gateway.until(lambda: gateway.audit_events(trace))
    assert [one["subtype"][0]["code"] for one in events] == ["read-drift"]
