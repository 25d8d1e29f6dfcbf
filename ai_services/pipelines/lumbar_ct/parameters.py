"""Every constant that decides what the CT pipeline finds: one file, released and hashed like weights (stage 4).

Values and their sources stand beside them in parameters.yaml.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from ai_services.models.registry import Manifest, load_manifest
from ai_services.models.runtime import ModelIntegrityError


@dataclass(frozen=True, slots=True)
class Parameters:
    """Read from parameters.yaml; names as there, numbers in the unit that the name says."""

    bone_hu: float
    arch_hu: float
    metal_hu: float
    metal_mm3: float
    air_below_hu: float
    soft_low_hu: float
    soft_high_hu: float
    least_soft_share: float
    canal_area_low_mm2: float
    canal_area_high_mm2: float
    canal_hu_low: float
    canal_hu_high: float
    least_disc_contrast_hu: float
    least_disc_distance_mm: float
    sacral_width_mm: float
    transitional_width_mm: float
    fewest_discs: int
    body_distance_mm: float
    half_width_mm: float
    half_depth_mm: float


def load_parameters(manifest: Manifest | None = None) -> Parameters:
    """Read the released constants, checked against the manifest's hash.

    Parameters
    ----------
    manifest : the version that speaks; None for the one that the pipeline comes with

    Raises
    ------
    ModelIntegrityError
        The file is missing, is not the released one, or lacks a constant.
    """
    file = (manifest or load_manifest("lumbar_ct")).models["geometry"]
    return read_parameters(file.path, file.identity.sha256)


def read_parameters(path: Path, sha256: str | None = None) -> Parameters:
    """Read a file of constants.

    Raises
    ------
    ModelIntegrityError
        As `load_parameters`.
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ModelIntegrityError(f"file {path.name} cannot be read") from exc
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise ModelIntegrityError(f"file {path.name} is not the released one: its SHA-256 is {found[:12]}…")
    document = yaml.safe_load(content)
    names = {item.name for item in fields(Parameters)}
    if not isinstance(document, dict) or set(document) != names:
        raise ModelIntegrityError(f"file {path.name} does not hold the constants of this pipeline")
    return Parameters(**document)
