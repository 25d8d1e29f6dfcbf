"""Which studies the demonstration sends: a real T2 SPACE patient where the data is, else the phantom; and others.

The others are real series of several vendors that show no lumbar spine: they must be stored, registered and declined.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from foramen.ingest.sidecar import Sidecar
from foramen.ingest.spider import spider_patient_series
from foramen.ingest.wrap import wrap_volume
from foramen.kernel.identifiers import derived_uid

SPIDER_PATIENT = "52"
"""A patient kept out of training (model card), so that the check shows the model on what it has not seen."""

_VENDOR_FOLDERS = {
    "GE MPRAGE": ("ge_mprage", "**/i*.MRDC.*"),
    "Siemens enhanced sagittal": ("siemens_enhanced_sagittal", "**/*.dcm"),
    "Philips classic": ("philips_classic", "**/*.dcm"),
}


@dataclass(frozen=True)
class DemoStudy:
    """One study to send: `patient_id` is the DICOM Patient ID of its SYNTHETIC identity."""

    name: str
    patient_id: str
    study_instance_uid: str
    instances: list[Dataset]


def main_study(test_data: Path, issuer: str) -> DemoStudy:
    """Return the study for the main job: real slices where the data folder is, else the SYNTHETIC phantom."""
    if (test_data / "spider" / "t2_space").is_dir():
        name = f"real T2 SPACE images, SPIDER patient {SPIDER_PATIENT}, de-identified (CC BY 4.0)"
        return _study(name, spider_patient_series(test_data, SPIDER_PATIENT))
    return phantom_study(issuer, seed=1)


def phantom_study(issuer: str, seed: int) -> DemoStudy:
    """Return a procedural lumbar phantom as an MR study; SYNTHETIC in every description."""
    from ai_services.imaging.phantom import lumbar_phantom

    phantom = lumbar_phantom(seed)
    slice_mm, row_mm, column_mm = _spacing_mm(phantom.affine_lps)
    sidecar = Sidecar(
        patient_id=f"SYN-PHANTOM-{seed}",
        issuer=issuer,
        patient_name=f"SYNTHETIC^PHANTOM {seed}",
        study_description="Lumbar spine MR phantom",
        series_description="T2 TSE sag phantom",
        pixel_spacing_mm=(row_mm, column_mm),
        slice_spacing_mm=slice_mm,
        echo_time_ms=100,
        repetition_time_ms=3500,
        echo_train_length=16,
        synthetic=True,
        derivation="Procedural phantom, no patient",
    )
    return _study(f"SYNTHETIC lumbar phantom, seed {seed}", wrap_volume(phantom.pixels, sidecar))


def vendor_studies(test_data: Path) -> list[DemoStudy]:
    """Return real head and phantom series of three vendors under SYNTHETIC identities; empty without the data folder.

    Their UIDs and patient identity are replaced, so that they match a patient of the cohort and can be sent again.
    """
    studies = []
    for number, (name, (folder, pattern)) in enumerate(_VENDOR_FOLDERS.items(), start=1):
        files = sorted((test_data / "dicom" / folder).glob(pattern))
        instances = [dataset for file in files if (dataset := _read(file)) is not None]
        if instances:
            studies.append(_study(name, _under_identity(instances, f"SYN-VENDOR-{number}")))
    return studies


def fresh(study: DemoStudy, salt: str) -> DemoStudy:
    """Return the same images as a new study, so that a check can be repeated on one installation."""
    instances = _under_identity(study.instances, study.patient_id, salt)
    return DemoStudy(study.name, study.patient_id, str(instances[0].StudyInstanceUID), instances)


def _spacing_mm(affine_lps: object) -> tuple[float, float, float]:
    import numpy as np

    columns = np.asarray(affine_lps)[:3, :3]
    slice_mm, row_mm, column_mm = (round(float(value), 6) for value in np.linalg.norm(columns, axis=0))
    return slice_mm, row_mm, column_mm


def _study(name: str, instances: list[Dataset]) -> DemoStudy:
    return DemoStudy(name, str(instances[0].PatientID), str(instances[0].StudyInstanceUID), instances)


def _read(file: Path) -> Dataset | None:
    try:
        return dcmread(file)
    except InvalidDicomError:
        return None


def _under_identity(instances: list[Dataset], patient_id: str, salt: str = "") -> list[Dataset]:
    first_study = str(instances[0].StudyInstanceUID)
    key = (patient_id, salt)
    for dataset in instances:
        dataset.PatientID, dataset.IssuerOfPatientID = patient_id, "DEMO"
        dataset.PatientName = f"SYNTHETIC^{patient_id}"
        dataset.StudyInstanceUID = derived_uid("demo-study", *key, first_study)
        dataset.SeriesInstanceUID = derived_uid("demo-series", *key, str(dataset.SeriesInstanceUID))
        dataset.SOPInstanceUID = derived_uid("demo-instance", *key, str(dataset.SOPInstanceUID))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return instances
