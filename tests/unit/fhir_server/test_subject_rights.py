"""Pure parts of subject rights: retention, what names a person, what is taken out. All data SYNTHETIC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from fhir_server.access.restriction import Restriction
from fhir_server.search.hashing import resource_key
from fhir_server.settings import FhirSettings
from fhir_server.store.changes import Stored
from fhir_server.store.erasures import Closed
from fhir_server.subject_rights.marks import marks_of, names_anybody, needles
from fhir_server.subject_rights.retention import LastVisit, Years
from fhir_server.subject_rights.scrub import scrubbed
from fhir_server.subject_rights.summary import row_of
from foramen.kernel.settings import Settings

NOW = datetime(2026, 11, 22, tzinfo=UTC)
YEARS = Years(15, 30)


def micros(year: int, month: int = 3, day: int = 1) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp() * 1e6)


def visit(*resources: tuple[dict[str, Any], int | None]) -> LastVisit:
    found = LastVisit(NOW)
    for resource, latest in resources:
        found.add(resource, latest, NOW)
    return found


def encounter(code: str | None) -> dict[str, Any]:
    return {"resourceType": "Encounter", **({"class": {"code": code}} if code else {})}


@pytest.mark.parametrize(
    ("resources", "year"),
    [
        ([(encounter("AMB"), micros(2012))], 2027),
        ([(encounter("AMB"), micros(2011))], None),
        ([(encounter("IMP"), micros(2011))], 2041),
        ([(encounter("AMB"), micros(2011)), (encounter("IMP"), micros(1990))], 2041),
        ([(encounter(None), micros(2011))], 2041),
        ([({"resourceType": "Observation"}, micros(2011))], 2041),
        ([({"resourceType": "Observation"}, None)], 2056),
        ([({"resourceType": "Observation"}, micros(2090))], 2056),
        ([({"resourceType": "Patient"}, None), ({"resourceType": "Consent"}, micros(2026))], None),
        ([], None),
        ([(encounter("AMB"), micros(2012, 2, 29))], 2027),
    ],
)
def test_kept_until(resources: list[tuple[dict[str, Any], int | None]], year: int | None):
    kept = visit(*resources).kept_until(YEARS)
    assert (kept.year if kept else None) == year


def test_marks_leave_out_what_is_found_everywhere():
    person = {"identifier": [{"value": "123"}, {"value": "SYN-12345"}], "name": [{"family": "王", "given": ["小明"]}]}
    assert marks_of(person) == {"SYN-12345", "王小明", "王 小明", "小明 王"}
    assert names_anybody("letter of syn-12345", marks_of(person))
    assert not names_anybody("letter of a 王", marks_of(person))


def test_needles_find_escaped_text():
    for text in (b'"\\u738b\\u5c0f\\u660e"', b'"\\u738B\\u5C0F\\u660E"', '"王小明"'.encode()):
        assert any(needle in text for needle in needles(["王小明"])), text


def test_scrubbing_keeps_the_digits_and_the_reference():
    content = (
        b'{"resourceType":"Observation","text":{"status":"generated","div":"<div>SYNTHETIC Anna</div>"},'
        b'"focus":[{"reference":"http://own/fhir/Patient/p/_history/2","display":"Anna","identifier":{"value":"1"}}],'
        b'"subject":{"reference":"Patient/q","display":"Other"},"valueQuantity":{"value":1.50}}'
    )
    found = scrubbed(content, {"Patient/p"}, {"Anna"}, "http://own/fhir")
    assert found is not None
    assert b"1.50" in found
    data = orjson.loads(found)
    assert data["focus"] == [{"reference": "http://own/fhir/Patient/p/_history/2"}]
    assert data["subject"]["display"] == "Other"
    assert "text" not in data
    assert scrubbed(found, {"Patient/p"}, {"Anna"}, "http://own/fhir") is None


def test_an_erased_record_hides_nothing_and_takes_nothing():
    key = resource_key("Patient", "p")
    stored = Stored(1, "Observation", "o", 1, NOW, "PUT", b"{}", (key,))
    states = {
        state: Restriction([Closed(key, "p", state, ())], sees=False) for state in ("erasing", "restricted", "erased")
    }
    assert [states[state].hides(stored) for state in states] == [True, True, False]
    assert states["erased"].condition("Observation") is None
    assert not Restriction([Closed(key, "p", "restricted", ())], sees=True).hides(stored)
    assert not states["restricted"].hides(stored._replace(resource_type="AuditEvent"))


@pytest.mark.parametrize(("name", "value"), [("erasure_record_years", 2), ("retention_outpatient_years", -1)])
def test_settings_cannot_be_set_lower(name: str, value: int):
    with pytest.raises(ValidationError):
        FhirSettings(**{name: value})  # type: ignore[arg-type]


def test_the_audit_is_kept_180_days_or_more():
    with pytest.raises(ValidationError):
        Settings(audit_retention_days=179)


def test_a_row_says_what_was_measured():
    resource = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "VAS"},
        "effectiveDateTime": "2026-01-05",
        "valueQuantity": {"value": 4, "unit": "mm"},
    }
    row = row_of(resource)
    assert (row.date, row.what, row.value, row.status) == ("2026-01-05", "VAS", "4 mm", "final")
