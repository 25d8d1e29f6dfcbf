"""The record's rules as rows: what cannot be read is an error, and never half a rule."""

from __future__ import annotations

from typing import Any

import pytest

from dicomweb.consents.released_output import series_of
from dicomweb.consents.rules import BEGINNING, END, rules_of
from foramen.kernel.errors import UpstreamError
from terminology import systems

PATIENT = {"name": "patient", "valueReference": {"reference": "Patient/p"}}


def answer(*parameters: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": list(parameters)}


def test_no_rules() -> None:
    found = rules_of({"resourceType": "Parameters"})
    assert (found.closed, found.permits, found.restricted) == ([], [], [])


def test_a_denial_with_everything() -> None:
    actor, other = ({"name": "actor", "valueUri": f"Practitioner/{name}"} for name in "de")
    permit = {"name": "permit", "part": [other, {"name": "end", "valueDecimal": 9}]}
    limited = {"name": "limited", "valueBoolean": True}
    study = {"name": "study", "valueUri": "urn:oid:1.2.3"}
    begin = {"name": "begin", "valueDecimal": 5}
    found = rules_of(answer({"name": "denial", "part": [PATIENT, actor, begin, permit, limited, study]}))
    assert found.closed == [(0, "Patient/p", ["1.2.3"], ["Practitioner/d"], 5, END)]
    assert found.permits == [(0, ["Practitioner/e"], BEGINNING, 9)]


def test_a_limit_that_no_study_fulfils_closes_none_and_no_limit_closes_all() -> None:
    limited = {"name": "limited", "valueBoolean": True}
    none = rules_of(answer({"name": "denial", "part": [PATIENT, limited]}))
    every = rules_of(answer({"name": "denial", "part": [PATIENT]}))
    assert (none.closed[0][2], every.closed[0][2]) == ([], None)


def test_restricted() -> None:
    state = {"name": "state", "valueCode": "erased"}
    assert rules_of(answer({"name": "restricted", "part": [PATIENT, state]})).restricted == [("Patient/p", "erased")]


@pytest.mark.parametrize(
    "found",
    [
        {"resourceType": "Bundle"},
        {},
        answer({"name": "denial"}),
        answer({"name": "denial", "part": []}),
        answer({"name": "other", "part": [PATIENT]}),
        answer({"name": "restricted", "part": [PATIENT]}),
        answer({"name": "denial", "part": [PATIENT, {"name": "purpose", "valueCode": "x"}]}),
        answer({"name": "denial", "part": [PATIENT, {"name": "permit", "part": [{"name": "study"}]}]}),
        answer({"name": "denial", "part": [PATIENT, {"name": "begin", "valueDecimal": "soon"}]}),
    ],
)
def test_what_cannot_be_read_is_an_error(found: dict[str, Any]) -> None:
    with pytest.raises(UpstreamError):
        rules_of(found)


def test_series_that_a_report_names() -> None:
    made = (systems.EXTENSION_SEGMENTATION, systems.EXTENSION_STRUCTURED_REPORT)
    urls = (*made, systems.EXTENSION_KEY_IMAGES, systems.EXTENSION_KEY_OBJECTS, systems.EXTENSION_SOURCE_SERIES)
    report = {"extension": [{"url": url, "valueUri": f"urn:oid:1.{n}"} for n, url in enumerate(urls)]}
    assert series_of(report) == {"1.0", "1.1", "1.2", "1.3"}
    assert series_of({}) == set()
