"""One T2 SPACE patient of the SPIDER set (CC BY 4.0, derived PNG slices) as an MR series under a made-up identity.

van der Graaf et al., Sci Data 11, 264 (2024), doi 10.1038/s41597-024-03090-w.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

from pydicom import Dataset

from foramen.ingest.pictures import read_slice
from foramen.ingest.sidecar import Sidecar
from foramen.ingest.wrap import wrap_slices
from foramen.kernel.errors import NotFoundError

_SLICE_STEP_MM = 1.0
_SPACING_MM = 0.46875


def spider_patient_sidecar(test_data: Path, patient: str) -> Sidecar:
    """Describe the T2 SPACE slices of one patient, from the set's own overview.csv."""
    row = _overview(test_data, patient)
    spacing = (
        json.loads(row["PixelSpacing"].replace("[.", "[0.").replace(" .", " 0.")) if row.get("PixelSpacing") else []
    )
    return Sidecar(
        patient_id=f"SYN-SPIDER-{patient}",
        issuer="DEMO",
        patient_name=f"SYNTHETIC^SPIDER {patient}",
        patient_sex="F" if row.get("sex", "").strip() == "F" else "M" if row.get("sex", "").strip() == "M" else "",
        study_description="Lumbar spine MR, SPIDER, identity SYNTHETIC",
        series_description="T2 SPACE sag, wrapped from SPIDER derived PNG",
        pixel_spacing_mm=(spacing[0], spacing[1]) if len(spacing) == 2 else (_SPACING_MM, _SPACING_MM),
        slice_spacing_mm=_SLICE_STEP_MM,
        slice_thickness_mm=round(float(row["SliceThickness"]), 3) if row.get("SliceThickness") else None,
        slice_index_pattern=r"_slice(\d+)\.",
        echo_time_ms=_number(row, "EchoTime"),
        repetition_time_ms=_number(row, "RepetitionTime"),
        echo_train_length=int(row["EchoTrainLength"]) if row.get("EchoTrainLength", "").isdigit() else None,
        flip_angle_deg=_number(row, "FlipAngle"),
        magnetic_field_strength_t=_number(row, "MagneticFieldStrength"),
        acquisition_type="3D",
        sequence_name=row.get("SequenceName", "")[:16],
        derivation="8-bit slices derived from SPIDER (CC BY 4.0, doi 10.1038/s41597-024-03090-w); side unknown",
    )


def spider_patient_series(test_data: Path, patient: str) -> list[Dataset]:
    """Wrap the T2 SPACE slices of one patient; every second slice is there for some patients (2 mm)."""
    sidecar = spider_patient_sidecar(test_data, patient)
    files = _files(test_data, patient)
    return wrap_slices([read_slice(path, sidecar) for path in files], sidecar)


def spider_patients(test_data: Path) -> list[str]:
    """Patient numbers that have T2 SPACE slices, in numerical order."""
    folder = test_data / "spider" / "t2_space" / "images"
    return sorted({path.name.split("_")[0] for path in folder.glob("*_t2_SPACE_slice*")}, key=int)


def _files(test_data: Path, patient: str) -> list[Path]:
    files = sorted((test_data / "spider" / "t2_space" / "images").glob(f"{patient}_t2_SPACE_slice*.*"))
    if not files:
        raise NotFoundError(f"SPIDER has no T2 SPACE slices of patient {patient}")
    return files


def _overview(test_data: Path, patient: str) -> dict[str, str]:
    try:
        with (test_data / "spider" / "overview.csv").open(encoding="utf-8", newline="") as file:
            rows = {row["new_file_name"]: row for row in csv.DictReader(file)}
    except OSError as exc:
        raise NotFoundError("The SPIDER overview.csv is not there") from exc
    if f"{patient}_t2_SPACE" not in rows:
        raise NotFoundError(f"SPIDER has no T2 SPACE series of patient {patient}")
    return rows[f"{patient}_t2_SPACE"]


def _number(row: dict[str, str], column: str) -> float | None:
    try:
        return float(row[column])
    except (KeyError, ValueError):
        return None
