"""The JSON sidecar that says what cannot say it of itself: whose pictures, which series, which geometry.

Attributes follow DICOM PS3.3 C.7 (patient, study, image plane) and C.8.3.1 (MR image).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from foramen.kernel.errors import InvalidRequestError

Described = TypeVar("Described", bound="Description")


class Description(BaseModel):
    """Whose something is and what it is called: all that a single picture, a volume, a video or a model needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patient_id: str = Field(min_length=1, max_length=64, description="Patient ID (0010,0020).")
    issuer: str | None = Field(default=None, max_length=64, description="Issuer of Patient ID (0010,0021).")
    patient_name: str = Field(default="", max_length=64, description="Patient's Name, family^given.")
    patient_birth_date: str = Field(default="", pattern=r"^(\d{8})?$", description="YYYYMMDD.")
    patient_sex: Literal["", "M", "F", "O"] = ""
    study_key: str | None = Field(default=None, description="Series with the same key and patient lie in one study.")
    study_description: str = Field(default="", max_length=64)
    study_date: str = Field(default="", pattern=r"^(\d{8})?$", description="YYYYMMDD.")
    accession_number: str = Field(default="", max_length=16)
    series_description: str = Field(default="", max_length=64)
    series_number: int = Field(default=1, ge=0)
    modality: Literal["", "MR", "CT", "DX", "CR", "XC", "ES", "GM", "OT", "M3D"] = Field(
        default="", description="Default: MR for volumes and slices, OT for pictures, ES for videos, M3D for models."
    )
    body_part: str = Field(default="LSPINE", max_length=16)
    manufacturer: str = Field(default="", max_length=64)
    synthetic: bool = Field(
        default=False, description="The pictures themselves are synthetic; written into the descriptions."
    )
    derivation: str = Field(default="", max_length=1024, description="How the pictures were made (0008,2111).")


class Sidecar(Description):
    """What the pictures of a series cannot say of themselves. Lengths in millimetres, times in milliseconds."""

    pixel_spacing_mm: tuple[float, float] = Field(description="Distance between rows, between columns.")
    slice_spacing_mm: float = Field(gt=0, description="Distance of two neighbouring slice indexes.")
    slice_thickness_mm: float | None = Field(default=None, gt=0, description="Default: slice_spacing_mm.")
    slice_index_pattern: str = Field(
        default=r"(\d+)(?=\.\w+$)",
        description="Regular expression; its first group is the slice index in the file name.",
    )
    orientation: Literal["sagittal"] = Field(default="sagittal", description="Head up, anterior left.")
    echo_time_ms: float | None = Field(default=None, ge=0)
    repetition_time_ms: float | None = Field(default=None, ge=0)
    echo_train_length: int | None = Field(default=None, ge=0)
    flip_angle_deg: float | None = None
    magnetic_field_strength_t: float | None = Field(default=None, gt=0)
    scanning_sequence: Literal["SE", "IR", "GR", "EP", "RM"] = "SE"
    acquisition_type: Literal["2D", "3D"] = "2D"
    sequence_name: str = Field(default="", max_length=16)

    @field_validator("pixel_spacing_mm")
    @classmethod
    def _positive(cls, value: tuple[float, float]) -> tuple[float, float]:
        if min(value) <= 0:
            raise ValueError("must be positive")
        return value

    @field_validator("slice_index_pattern")
    @classmethod
    def _one_group(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
        except re.error as exc:
            raise ValueError("is not a regular expression") from exc
        if groups < 1:
            raise ValueError("needs a group for the slice index")
        return value

    def slice_index(self, file_name: str) -> int:
        """Slice index in a file name.

        Raises
        ------
        InvalidRequestError
            The name does not match the pattern.
        """
        match = re.search(self.slice_index_pattern, file_name)
        if match is None or not match.group(1).isdigit():
            raise InvalidRequestError("The file name holds no slice index (slice_index_pattern)")
        return int(match.group(1))


def read_sidecar(path: Path) -> Sidecar:
    """Read a sidecar file of a series of pictures.

    Raises
    ------
    InvalidRequestError
        Not JSON, or not as the schema says; names the fields, never their values.
    """
    return _validated(Sidecar, path.read_bytes())


def read_description(path: Path) -> Description:
    """Read a sidecar file: a `Sidecar` where it speaks of the geometry of slices, else a `Description`.

    Raises
    ------
    InvalidRequestError
        As `read_sidecar`.
    """
    content = path.read_bytes()
    slices = b'"slice_spacing_mm"' in content or b'"pixel_spacing_mm"' in content
    return _validated(Sidecar if slices else Description, content)


def _validated(kind: type[Described], content: bytes) -> Described:
    try:
        return kind.model_validate_json(content)
    except ValidationError as exc:
        faults = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in exc.errors())
        raise InvalidRequestError(f"The sidecar is not valid: {faults}") from exc
