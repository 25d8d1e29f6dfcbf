"""`foramen register` on the real record and archive: stored once, unsigned, valid; what does not belong is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from ai_services.models.registry import load_manifest
from ai_services.models.stages import CHECKLIST, Stage
from ai_services.models.versions import ModelRegistry
from ai_services.registration.spatial_registration import SERIES_DESCRIPTION
from foramen.kernel.identifiers import derived_uid, new_trace_id
from terminology import systems
from terminology.analysis_reasons import ANALYSIS_REASONS
from terminology.codes import AI_GENERATED, MODEL_RECALLED
from tests.builders.ct_series import ct_series
from tests.builders.installation import ISSUER, Installation
from tests.builders.model_package import ct_model_package
from tests.builders.mr_of_ct import TRUE, ct_of_the_pair, mr_of_the_pair

pytestmark = pytest.mark.system
CT, VERSION = "lumbar_ct", "0.9.0"
LARGEST_ERROR_MM = 1.0


def stored(system: Installation, series: list[Dataset], patient_id: str, study: str, frame: str) -> str:
    """Send a series as a study that nobody analyses; returns its Study Instance UID once the record knows it."""
    common = {"PatientID": patient_id, "IssuerOfPatientID": ISSUER, "StudyInstanceUID": study}
    common |= {"StudyDate": "20261123", "StudyTime": "080000", "StudyDescription": "L-spine SYNTHETIC"}
    common |= {"SeriesInstanceUID": f"{study}.1", "FrameOfReferenceUID": frame, "PatientBirthDate": "19700101"}
    common |= {"PatientSex": "O", "StudyID": "1", "AccessionNumber": "", "ReferringPhysicianName": ""}
    for dataset in series:
        for keyword, value in common.items():
            setattr(dataset, keyword, value)
        uid = derived_uid(study, str(dataset.InstanceNumber))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    system.store(series)
    system.cancel(study)  # else the workers of the next tests would take it up
    return study


def registrations(system: Installation, study: str) -> list[str]:
    """Series Instance UIDs of the registrations in a study."""
    found = system.http.get(
        f"/dicom-web/studies/{study}/series?Modality=REG", headers={"Accept": "application/dicom+json"}
    )
    return [item["0020000E"]["Value"][0] for item in (found.json() if found.status_code == 200 else [])]


@pytest.mark.timeout(900)  # two registrations of many seconds each, on cores that other tests share
def test_a_pair_is_registered_and_a_recall_finds_it(system: Installation, foramen: Any, tmp_path: Path) -> None:
    registry = ModelRegistry(system.database_url, system.settings.home)
    registry.take_in_what_came_with_the_software()
    patient, other = system.new_patient(), system.new_patient()
    uids = [derived_uid("test", new_trace_id()) for _ in range(4)]
    mr_frame = f"{uids[1]}.9"
    ct = stored(system, ct_series(ct_of_the_pair()), patient, uids[0], f"{uids[0]}.9")
    mr = stored(system, mr_of_the_pair(), patient, uids[1], mr_frame)
    # Both are refused for what their headers say: a few images will do.
    of_another = stored(system, mr_of_the_pair()[:3], other, uids[2], f"{uids[2]}.9")
    claiming = stored(system, ct_series(ct_of_the_pair())[:3], patient, uids[3], mr_frame)

    # Nobody has released CT: refused; a dry run may ask a version that nobody released, and stores nothing.
    assert ANALYSIS_REASONS["ct-not-released"].display in foramen("register", ct, mr, status=1)
    registry.register(ct_model_package(tmp_path / "ct", VERSION), "dr-li", "to try")
    told = foramen("register", ct, mr, "--dry-run", "--ct-version", VERSION)
    assert "nothing is stored" in told
    assert registrations(system, ct) == []
    registry.move(CT, VERSION, Stage.SHADOW, "dr-li", "SYNTHETIC images only")
    registry.move(CT, VERSION, Stage.RELEASED, "dr-li", "SYNTHETIC images only", CHECKLIST)

    for words, code in (
        ((ct, of_another), "different-patients"),
        ((claiming, mr), "same-frame-of-reference"),
        ((ct, ct), "no-mr-images"),
        ((mr, mr), "no-ct-images"),
    ):
        assert code in foramen("register", *words, status=1)
    assert "no such study" in foramen("register", ct, "1.2.3.4", status=2)
    assert "no such active account" in foramen("register", ct, mr, "--user", "nobody", status=2)
    assert registrations(system, ct) == registrations(system, claiming) == []
    subject = system.task(ct)["for"]["reference"]
    code = f"{systems.FINDING}|mr-ct-registration"
    assert system.search(f"Observation?subject={subject}&code={code}") == []

    told = foramen("register", ct, mr)
    assert "mm" in told
    assert "unverified" in told
    (series,) = registrations(system, ct)
    assert len(system.tasks(ct)) == 1  # what we made ourselves asks for no new analysis
    (observation,) = system.search(f"Observation?subject={subject}&code={code}")
    assert observation["status"] == "preliminary"
    assert AI_GENERATED.coding() in observation["meta"]["tag"]
    assert len(observation["derivedFrom"]) == 2
    made = instance_of(system, ct, series, tmp_path)
    (provenance,) = system.search(f"Provenance?target=Observation/{observation['id']}")
    named = {target.get("identifier", {}).get("value") for target in provenance["target"]}
    assert f"urn:oid:{made.SOPInstanceUID}" in named
    check(made, tmp_path / "made.dcm")

    document = tmp_path / "recall.json"
    foramen("model", "recall", VERSION, "--name", CT, "--by", "dr-li", "--reason", "wrong", "--out", str(document))
    closed = system.http.get(f"/fhir/Observation/{observation['id']}").json()
    assert closed["status"] == "cancelled"
    assert MODEL_RECALLED.coding() in closed["meta"]["tag"]
    assert str(made.SOPInstanceUID) in document.read_text(encoding="utf-8")
    assert ANALYSIS_REASONS["ct-not-released"].display in foramen("register", ct, mr, status=1)
    assert load_manifest(CT).version != VERSION


def instance_of(system: Installation, study: str, series: str, folder: Path) -> Dataset:
    """The one instance of a series, as the archive gives it."""
    answer = system.http.get(
        f"/dicom-web/studies/{study}/series/{series}", headers={"Accept": 'multipart/related; type="application/dicom"'}
    )
    content = answer.content
    start = content.index(b"DICM") - 128
    end = content.rindex(b"\r\n--")
    (folder / "made.dcm").write_bytes(content[start:end])
    return dcmread(folder / "made.dcm")


def check(made: Dataset, file: Path) -> None:
    """The matrix leads from the MR's frame to the CT's, and the object is free of errors."""
    there = made.RegistrationSequence[1]
    values = there.MatrixRegistrationSequence[0].MatrixSequence[0].FrameOfReferenceTransformationMatrix
    matrix = np.array([float(value) for value in values]).reshape(4, 4)
    for point in np.array([[0.0, 0.0, z] for z in (-60, 0, 60)]):
        back = (matrix @ [*TRUE.apply(point), 1.0])[:3]
        assert np.linalg.norm(back - point) < LARGEST_ERROR_MM
    assert made.SeriesDescription == SERIES_DESCRIPTION
    told = subprocess.run(
        [Path(sys.executable).with_name("dciodvfy"), "-new", file], capture_output=True, text=True, check=False
    ).stderr
    assert "SpatialRegistration" in told
    assert [line for line in told.splitlines() if line.startswith("Error")] == []
