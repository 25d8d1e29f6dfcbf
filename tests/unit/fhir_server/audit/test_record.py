"""The index of an event is found in parts and remembered; its key must hold all that the remembered part holds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fhir_server.audit.record import AuditRecord, audit_record, event_change, references_of, touched
from fhir_server.search.index import extractor
from foramen.kernel.access_context import AccessContext

_URL = "https://fhir.example/fhir"
_CHEN = AccessContext("dr-chen", "result-review", (), fhir_user="Practitioner/chen", institution="north")


def record(**more: Any) -> AuditRecord:
    given: dict[str, Any] = {"interaction": "operation", "status": 200, "trace_id": "t", "context": _CHEN}
    return audit_record(**{**given, **more})


_RECORDS = (
    record(),
    record(operation="export"),
    record(operation="everything"),
    record(operation="export", status=403),
    record(interaction="read", entity="Observation/a"),
    record(context=None),
    record(context=AccessContext("dr-chen", "result-review", (), fhir_user="Practitioner/chen")),
    record(context=AccessContext("dr-chen", "portal", (), fhir_user="Practitioner/chen", institution="north")),
    record(context=AccessContext("cc", "portal", (), fhir_user="Patient/cc"), entity="Patient/cc"),
)


@pytest.mark.parametrize("order", [_RECORDS, _RECORDS[::-1]], ids=["forwards", "backwards"])
def test_an_event_is_indexed_as_if_it_were_the_only_one(order: tuple[AuditRecord, ...]):
    for item in order:
        change = event_change(item, _URL)
        event = msgspec.json.decode(change.content or b"")
        alone = extractor("AuditEvent", _URL).extract(
            {name: value for name, value in event.items() if name not in ("id", "meta")}, item.logical_id
        )
        assert change.values is not None
        assert change.values.postings == alone.postings
        assert change.values.strings == alone.strings


def test_what_a_search_showed_is_read_as_references():
    assert references_of(["Observation?", "a", "b", "Patient/p", "Encounter?", "c"]) == [
        *("Observation/a", "Observation/b", "Patient/p", "Encounter/c")
    ]
    shown = record(shown=["Observation?", "a", "AuditEvent/x"], entity="Patient/p")
    assert touched(shown) == ["Observation/a", "Patient/p"]
    assert touched(record(shown=["Observation/a"], status=404)) == []


def test_patients_of_what_was_shown_are_named_once_and_a_crowd_is_cut():
    def named(item: AuditRecord, *patients: str) -> list[str]:
        event = msgspec.json.decode(event_change(item, _URL, patients).content or b"")
        return [e["what"]["reference"] for e in event["entity"] if "what" in e]

    assert named(record(), "Patient/a") == ["Patient/a"]
    assert named(record(entity="Patient/a"), "Patient/a") == ["Patient/a"]
    assert named(record(patient="Patient/a"), "Patient/a", "Patient/b") == ["Patient/a", "Patient/b"]
    crowd = [f"Patient/{number:04d}" for number in range(500)]
    assert named(record(), *crowd) == crowd[:201]
    told = msgspec.json.decode(event_change(record(), _URL, crowd).content or b"")
    assert told["entity"][-1]["description"] == "299 resources"
