"""The wall of an institution without a database: whom it bounds, and that what was not looked up is hidden."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from fhir_server.access.institutions import OUTSIDE, Wall, managed_by, wall_of, walled_types
from fhir_server.jobs.job import owner_bytes, owner_of
from fhir_server.search.conditions import AnyPosting, InInstitution, Nothing
from fhir_server.search.hashing import resource_key
from fhir_server.search.index import extractor
from fhir_server.search.parameters import r4_parameters, resource_types
from fhir_server.store.changes import Stored
from foramen.kernel.access_context import AccessContext, parse_scopes

OWN = "https://foramen.example/fhir"


def context(scope: str = "user/*.rs", **more: Any) -> AccessContext:
    return AccessContext(**{"subject": "d", "client_id": "app", "scopes": parse_scopes(scope), **more})


def wall(**more: Any) -> Wall:
    found = wall_of(context(**more), "separate", OWN)
    assert found is not None
    return found


def stored(resource_type: str, content: dict[str, Any] | None = None, patients: tuple[int, ...] = ()) -> Stored:
    body = None if content is None else orjson.dumps({"resourceType": resource_type, "id": "x", **content})
    return Stored(1, resource_type, "x", 1, datetime.now(UTC), "PUT", body, patients)


@pytest.mark.parametrize(
    ("asked", "bounded"),
    [
        (context(), True),
        (context(institution="a", fhir_user="Practitioner/d"), True),
        (context("system/*.rs"), True),
        (context("system/*.rs", subject="app", fhir_user="Practitioner/d"), True),
        (context("system/*.rs user/Patient.r", subject="app"), True),
        (context("system/*.rs foramen/admin", subject="app"), False),
        (context(every_institution=True), False),
    ],
)
def test_whom_it_bounds(asked: AccessContext, bounded: bool) -> None:
    assert asked.is_bounded_by_institution is bounded
    assert wall_of(asked, "shared", OWN) is None
    for setting in ("separate", "", "Shared", "anything"):
        assert (wall_of(asked, setting, OWN) is not None) is bounded
    assert owner_of(owner_bytes(asked)).is_bounded_by_institution is bounded


def test_the_posting_is_the_one_of_the_index() -> None:
    patient = {"resourceType": "Patient", "managingOrganization": {"reference": f"{OWN}/Organization/a"}}
    assert managed_by("a") in extractor("Patient", OWN).extract(patient, "p").postings
    elsewhere = {"managingOrganization": {"reference": "https://elsewhere.example/fhir/Organization/a"}}
    assert managed_by("a") not in extractor("Patient", OWN).extract({**patient, **elsewhere}, "p").postings


def test_every_type_that_may_name_a_patient_as_its_subject_is_walled() -> None:
    for name in resource_types() - walled_types():
        table = r4_parameters(name).parameters
        named = [code for code in ("patient", "subject") if code in table and "Patient" in table[code].targets]
        assert not named, name
    assert walled_types() > OUTSIDE


def test_what_queries_must_fulfil() -> None:
    assert wall(institution="a").condition("Organization") is None
    assert wall(institution="a").condition("Patient") == AnyPosting((managed_by("a"),))
    assert wall().condition("Patient") == Nothing()
    assert wall(institution="a").condition("Observation") == InInstitution((managed_by("a"),))
    assert wall().condition("Observation") == InInstitution(())
    audit = wall(institution="a").condition("AuditEvent")
    assert isinstance(audit, InInstitution)
    assert not audit.beyond


def test_of_whom_nothing_was_looked_up_nothing_is_shown() -> None:
    one, key = wall(institution="a"), resource_key("Patient", "p")
    assert one.hides(stored("Observation", {}, (key,)))
    assert not one.hides(stored("Observation", {}))
    assert not one.hides(stored("Organization", {}))
    assert one.hides(stored("AuditEvent", {}))
    assert one.hides(stored("Task", {"for": {"reference": "Patient/p"}}))
    assert one.hides(stored("Task", {"for": {"reference": "https://elsewhere.example/fhir/Patient/p"}}))
    assert one.hides(stored("Task"))
    assert not one.hides(stored("Task", {"status": "requested"}))
    assert one.hides(stored("Binary", {"securityContext": {"reference": "Patient/p"}}))
    assert not one.hides(stored("Binary", {}, (key,)))  # Its own content decides.
    one._inside[key] = True
    assert not one.hides(stored("Observation", {}, (key, 1)))
    assert not one.hides(stored("Task", {"for": {"reference": f"{OWN}/Patient/p"}}))
