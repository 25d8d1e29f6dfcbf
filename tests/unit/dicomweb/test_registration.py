"""Stage 3 as pure functions: what the record is told about a study, and what it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicomweb.instance_header import is_own_output, read_header
from dicomweb.patient_match import PatientMatch, match_patient
from dicomweb.registration import (
    description_without_phi,
    imaging_study_resource,
    input_hash,
    needs_task,
    register,
    started_at,
    token_parameter,
)
from dicomweb.study_index import IndexedSeries, IndexedStudy
from dicomweb.urgency import NOT_SAID, Urgency, of_images, of_orders
from foramen.kernel.corrected_series import corrected_series_uid
from terminology import codes, systems
from tests.builders.dicom import encoded, series
from tests.unit.dicomweb.record_double import RecordDouble

NOW = "2026-11-22T08:00:00.000Z"


def study(*series_list: IndexedSeries, **tags: str) -> IndexedStudy:
    attributes = {tag[1:]: {"vr": "LO", "Value": [value]} for tag, value in tags.items()}
    return IndexedStudy("1.2.3", None, None, "stored", False, attributes, series_list)


def one_series(uid: str = "1.2.3.1", *sops: str, own: bool = False, modality: str = "MR") -> IndexedSeries:
    return IndexedSeries(uid, own, {"00080060": {"vr": "CS", "Value": [modality]}}, sops or ("1.2.3.1.1",))


@pytest.mark.parametrize(
    ("modality", "manufacturer", "own"),
    [
        ("SEG", "Foramen", True), ("SR", "FORAMEN 0.1", True), ("SEG", "Another", False), ("SR", "", False),
        ("MR", "Foramen", False), ("CT", "Foramen", False),
    ],
)  # fmt: skip
def test_own_output_is_our_derived_objects_and_never_an_image(modality: str, manufacturer: str, own: bool):
    assert is_own_output(modality, manufacturer) is own


def test_the_input_hash_ignores_own_output_and_order_and_sees_every_instance():
    one, two, own = one_series("1", "a", "b"), one_series("2", "c"), one_series("3", "d", own=True, modality="SEG")
    assert input_hash((one, two)) == input_hash((two, one, own))
    assert input_hash((one_series("1", "b", "a"), two)) == input_hash((one, two))
    assert input_hash((one_series("1", "a", "b", "e"), two)) != input_hash((one, two))
    assert len(input_hash((one,))) == 16


def test_corrected_copies_are_no_new_input_beside_their_original():
    original = one_series("1.2.3.1", "a", "b")
    copy = one_series(corrected_series_uid("1.2.3.1", ("denoise", "bias")), "c", "d")
    of_the_copy = one_series(corrected_series_uid(copy.series_instance_uid, ("resample",)), "e")
    assert input_hash((original, copy, of_the_copy)) == input_hash((original,))
    # Where the original is not, the copy is what there is to analyse.
    assert input_hash((copy,)) != input_hash(())
    of_another = one_series(corrected_series_uid("1.2.3.9", ("bias",)), "c")
    assert input_hash((original, of_another)) != input_hash((original,))


def test_a_study_of_own_output_alone_asks_for_nothing():
    own = study(one_series(own=True, modality="SEG"))
    result = register(own, PatientMatch("Patient/p"), imaging_study=None, tasks=[], trace_id="t", now=NOW)
    assert [entry["resource"]["resourceType"] for entry in result.bundle["entry"]] == ["ImagingStudy"]


def test_without_a_patient_only_a_waiting_task_is_written():
    reason = codes.REGISTRATION_REASONS["no-issuer"]
    result = register(
        study(one_series()), PatientMatch(reason=reason), imaging_study=None, tasks=[], trace_id="t", now=NOW
    )
    (entry,) = result.bundle["entry"]
    assert entry["resource"]["status"] == "on-hold"
    assert result.state == "on-hold"
    assert entry["request"]["ifNoneExist"].startswith("identifier=")
    assert "%5C%7C" in entry["request"]["ifNoneExist"]


STAT = {"00401003": {"vr": "SH", "Value": ["STAT"]}}
ORDER = {
    "resourceType": "ServiceRequest",
    "id": "o1",
    "status": "active",
    "priority": "asap",
    "identifier": [{"type": {"coding": [{"system": systems.IDENTIFIER_TYPE, "code": "ACSN"}]}, "value": "A1"}],
}


def test_how_urgent_a_study_is_says_its_order_and_else_its_images():
    plain = study(one_series(), _00080050="A1")
    requested = one_series()
    requested.attributes["00400275"] = {"vr": "SQ", "Value": [STAT]}
    assert of_images(plain) is None
    assert of_images(study(requested)) == "stat"
    assert of_images(replace(plain, attributes=plain.attributes | STAT)) == "stat"
    own = IndexedSeries("1.2.3.9", True, {"00400275": {"vr": "SQ", "Value": [STAT]}}, ("1",))
    assert of_images(study(own, one_series())) is None, "what we derived says nothing new"
    assert of_images(study(one_series(), _00401003="HIGH")) == "urgent"
    assert of_images(study(one_series(), _00401003="LOW")) is None
    assert of_orders([ORDER], plain) == Urgency("asap", "ServiceRequest/o1")
    assert of_orders([ORDER | {"priority": "routine"}], plain) == Urgency("routine", "ServiceRequest/o1")
    assert of_orders([ORDER, ORDER | {"id": "o2", "priority": "stat"}], plain).order == "ServiceRequest/o2"
    for useless in ({"status": "revoked"}, {"status": "draft"}, {"identifier": [{"value": "A1"}]}):
        assert of_orders([ORDER | useless], plain) is None
    assert of_orders([ORDER], study(one_series(), _00080050="A2")) is None
    by_uid = [{"system": systems.DICOM_UID, "value": "urn:oid:1.2.3"}]
    assert of_orders([ORDER | {"identifier": by_uid}], study(one_series())).priority == "asap"


def made_task(indexed: IndexedStudy, urgency: Urgency, *tasks: dict) -> dict:
    result = register(
        indexed, PatientMatch("Patient/p"), imaging_study=None, tasks=[*tasks], trace_id="t", now=NOW, urgency=urgency
    )
    return next(
        entry["resource"]
        for entry in result.bundle["entry"]
        if entry["resource"]["resourceType"] == "Task" and entry["resource"]["status"] == "requested"
    )


def test_a_task_begins_with_the_priority_of_its_study():
    task = made_task(study(one_series()), Urgency("stat", "ServiceRequest/o1"))
    assert (task["priority"], task["basedOn"]) == ("stat", [{"reference": "ServiceRequest/o1"}])
    routine = made_task(study(one_series()), Urgency("routine", "ServiceRequest/o1"))
    assert "priority" not in routine
    assert "basedOn" not in made_task(study(one_series()), NOT_SAID)


def test_an_emergency_stays_one_when_more_images_come_and_when_its_patient_is_found():
    lifted = made_task(study(one_series()), NOT_SAID) | {"id": "1", "meta": {"versionId": "2"}, "priority": "stat"}
    grown = study(one_series(), one_series("1.2.3.2"))
    assert made_task(grown, Urgency("urgent"), lifted)["priority"] == "stat"
    ended = lifted | {"status": "completed"}
    assert "priority" not in made_task(grown, NOT_SAID, ended), "what was answered is no emergency any more"
    held = lifted | {"status": "on-hold"}
    assert made_task(study(one_series()), NOT_SAID, held)["priority"] == "stat"
    assert needs_task(study(one_series()), [held])
    assert not needs_task(study(one_series()), [lifted])


@pytest.mark.parametrize("field", ["00100010", "00100020", "00100030"])
def test_no_demographics_reach_the_record(field: str):
    tags = {f"_{field}": "SECRET"}
    result = register(
        study(one_series(), **tags), PatientMatch("Patient/p"), imaging_study=None, tasks=[], trace_id="t", now=NOW
    )
    assert "SECRET" not in str(result.bundle)


@pytest.mark.parametrize(
    ("description", "name", "patient_id", "expected"),
    [
        ("Lumbar spine", "LI^LEI", "123456", "Lumbar spine"),
        ("Lumbar spine li lei", "LI^LEI", "123456", ""),
        ("MR 123456", "LI^LEI", "123456", ""),
        ("腰椎 李雷", "LI^LEI=李雷", "1", ""),
    ],
)
def test_a_description_that_repeats_the_patient_is_left_out(
    description: str, name: str, patient_id: str, expected: str
):
    groups = dict(zip(("Alphabetic", "Ideographic"), name.split("="), strict=False))
    attributes = {
        "00081030": {"vr": "LO", "Value": [description]},
        "00100010": {"vr": "PN", "Value": [groups]},
        "00100020": {"vr": "LO", "Value": [patient_id]},
    }
    assert description_without_phi(attributes) == expected


@pytest.mark.parametrize(
    ("date", "time", "offset", "expected"),
    [
        ("20260105", "", "", "2026-01-05"),
        ("20260105", "101112.5", "", "2026-01-05"),
        ("20260105", "101112.5", "+0800", "2026-01-05T10:11:12+08:00"),
        ("", "101112", "", None),
        ("2026", "", "", None),
    ],
)
def test_a_time_without_a_known_zone_is_not_written(date: str, time: str, offset: str, expected: str | None):
    values = {"00080020": date, "00080030": time, "00080201": offset}
    assert started_at({tag: {"vr": "DA", "Value": [value]} for tag, value in values.items() if value}) == expected


def test_what_others_added_to_the_imaging_study_stays():
    indexed = study(one_series())
    current = imaging_study_resource(indexed, "Patient/p") | {
        "id": "i", "meta": {"versionId": "4", "tag": [{"system": "x", "code": "y"}]}, "note": [{"text": "kept"}],
    }  # fmt: skip
    same = register(indexed, PatientMatch("Patient/p"), imaging_study=current, tasks=[], trace_id="t", now=NOW)
    assert [entry["resource"]["resourceType"] for entry in same.bundle["entry"]] == ["Task"]
    grown = study(one_series(), one_series("1.2.3.2", "1.2.3.2.1"))
    result = register(grown, PatientMatch("Patient/p"), imaging_study=current, tasks=[], trace_id="t", now=NOW)
    update = result.bundle["entry"][0]
    assert update["request"] == {"method": "PUT", "url": "ImagingStudy/i", "ifMatch": 'W/"4"'}
    assert update["resource"]["note"] == [{"text": "kept"}]
    assert update["resource"]["numberOfSeries"] == 2


def test_search_values_are_escaped():
    assert token_parameter("s", r"a|b,c$d\e") == r"s|a\|b\,c\$d\\e"


async def test_a_patient_is_matched_by_identifier_and_issuer_alone():
    record = RecordDouble()
    record.patient("SYN-1", "DEMO", id="right")
    record.patient("SYN-1", "ELSEWHERE", id="other")
    ids = {"00100020": {"vr": "LO", "Value": ["SYN-1"]}}
    issuer = {"00100021": {"vr": "LO", "Value": ["DEMO"]}}
    assert (await match_patient(record.client(), ids | issuer, None)).reference == "Patient/right"
    assert (await match_patient(record.client(), ids, "ELSEWHERE")).reference == "Patient/other"
    assert (await match_patient(record.client(), ids, None)).reason.code == "no-issuer"
    assert (await match_patient(record.client(), issuer, None)).reason.code == "no-patient-id"
    record.patient("SYN-1", "DEMO", id="twin")
    assert (await match_patient(record.client(), ids | issuer, None)).reason.code == "ambiguous-patient-match"


@pytest.mark.parametrize(
    ("charset", "name"),
    [("GB18030", "LI^LEI=李^雷"), ("ISO_IR 192", "LI^LEI=李^雷"), ("ISO_IR 100", "MÜLLER^Å"), ("GBK", "LI^LEI=李^雷")],
)
def test_character_sets_are_read_right(charset: str, name: str):
    dataset = series(1)[0]
    dataset.SpecificCharacterSet, dataset.PatientName = charset, name
    header = read_header(encoded(dataset))
    groups = header.study["00100010"]["Value"][0]
    assert "=".join(groups.values()) == name
