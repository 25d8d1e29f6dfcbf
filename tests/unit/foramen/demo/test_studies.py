"""The demonstration's studies: SYNTHETIC throughout, repeatable, and new again when a check is repeated."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from foramen.demo.cohort import cohort_bundle, demo_patients
from foramen.demo.studies import fresh, main_study, phantom_study, vendor_studies


def test_without_data_the_phantom_is_sent_and_says_so(tmp_path: Path) -> None:
    study = main_study(tmp_path, "DEMO")
    assert study.patient_id.startswith("SYN-")
    for dataset in study.instances:
        assert "SYNTHETIC" in dataset.StudyDescription
        assert "SYNTHETIC" in dataset.SeriesDescription
        assert dataset.IssuerOfPatientID == "DEMO"


def test_the_same_seed_is_the_same_study_and_another_is_another() -> None:
    assert phantom_study("DEMO", 1).study_instance_uid == phantom_study("DEMO", 1).study_instance_uid
    assert phantom_study("DEMO", 1).study_instance_uid != phantom_study("DEMO", 2).study_instance_uid


def test_a_fresh_study_has_the_same_pixels_under_new_uids() -> None:
    study = phantom_study("DEMO", 1)
    before = [(str(item.SOPInstanceUID), item.PixelData) for item in study.instances]
    again = fresh(study, "a")
    assert again.study_instance_uid != phantom_study("DEMO", 1).study_instance_uid
    assert [item.PixelData for item in again.instances] == [pixels for _, pixels in before]
    assert not {str(item.SOPInstanceUID) for item in again.instances} & {uid for uid, _ in before}


@pytest.mark.test_data
def test_real_series_are_sent_under_synthetic_identities(test_data: Path) -> None:
    studies = vendor_studies(test_data)
    assert len(studies) == 3
    for study in studies:
        assert {str(item.StudyInstanceUID) for item in study.instances} == {study.study_instance_uid}
        assert {str(item.PatientID) for item in study.instances} == {study.patient_id}
        assert all(str(item.PatientName).startswith("SYNTHETIC") for item in study.instances)


def test_the_cohort_is_labelled_and_only_the_first_patient_was_asked_everything() -> None:
    bundle = cohort_bundle(demo_patients(["SYN-A", "SYN-B"]), "2026-01-01T00:00:00Z")
    resources = [entry["resource"] for entry in bundle["entry"]]
    assert all(item["meta"]["tag"][0]["code"] == "SYNTHETIC" for item in resources)
    answered = [item["subject"]["reference"] for item in resources if item["resourceType"] == "QuestionnaireResponse"]
    assert answered == ["Patient/syn-a"]


def test_patients_of_a_large_cohort_were_born_on_days_that_exist() -> None:
    for person in demo_patients([f"SYN-{number}" for number in range(200)]):
        assert date.fromisoformat(person.birth_date) < date(2010, 1, 1)
