"""Thresholds of a watch: data, checked when read; their hash stands in each MeasureReport."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEFAULT = Path(__file__).with_name("thresholds.yaml")


class ThresholdError(Exception):
    """The file cannot be used; the message says which element."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """See thresholds.yaml; `digest` is the SHA-256 of the file."""

    family_error: float
    permutations: int
    seed: int
    patients: int
    decided: int
    cell: int
    psi: float
    ks: float
    rate: float
    above_rest: float
    digest: str


_FIELDS: dict[str, tuple[tuple[str, ...], type, float, float]] = {
    "family_error": (("family_error",), float, 0.0001, 0.5),
    "permutations": (("permutations",), int, 99, 100_000),
    "seed": (("seed",), int, 0, 2**63),
    "patients": (("minimum", "patients"), int, 2, 10**6),
    "decided": (("minimum", "decided"), int, 1, 10**6),
    "cell": (("minimum", "cell"), int, 2, 10**6),
    "psi": (("drift", "psi"), float, 0.0, 100.0),
    "ks": (("drift", "ks"), float, 0.0, 1.0),
    "rate": (("override", "rate"), float, 0.0, 1.0),
    "above_rest": (("override", "above_rest"), float, 0.0, 1.0),
}


def read_thresholds(path: Path = DEFAULT) -> Thresholds:
    """Read a file of thresholds.

    Raises
    ------
    ThresholdError
        It cannot be read, or an element is missing, unknown, of another type, or out of its range.
    """
    try:
        content = path.read_bytes()
        document = yaml.safe_load(content)
    except (OSError, yaml.YAMLError) as exc:
        raise ThresholdError("the thresholds cannot be read") from exc
    known = {place for place, *_ in _FIELDS.values()} | {("version",)}
    unknown = sorted(".".join(place) for place in _places(document) if place not in known)
    if unknown:
        raise ThresholdError(f"unknown element: {unknown[0]}")
    values: dict[str, Any] = {}
    for name, (place, kind, least, most) in _FIELDS.items():
        value: Any = document
        for part in place:
            value = value.get(part) if isinstance(value, dict) else None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or (kind is int and not isinstance(value, int)) or not least <= value <= most:
            raise ThresholdError(f"{'.'.join(place)} is a number of {least} to {most}")
        values[name] = kind(value)
    return Thresholds(**values, digest=hashlib.sha256(content).hexdigest())


def _places(document: Any) -> list[tuple[str, ...]]:
    if not isinstance(document, dict):
        raise ThresholdError("the thresholds are a mapping")
    found: list[tuple[str, ...]] = []
    for name, value in document.items():
        found += [(str(name), str(inner)) for inner in value] if isinstance(value, dict) else [(str(name),)]
    return found
