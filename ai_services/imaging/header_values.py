"""Numbers and words of a DICOM header that may be absent, empty, several or damaged (stage 4, DICOM PS3.5 §6.2)."""

from __future__ import annotations

import math

from pydicom.dataset import Dataset


def number_of(dataset: Dataset, keyword: str) -> float:
    """The first value of a numeric attribute; 0 where there is none that is a finite number."""
    value = dataset.get(keyword)
    if isinstance(value, list | tuple) or (hasattr(value, "__iter__") and not isinstance(value, str | bytes)):
        value = next(iter(value), None)
    try:
        number = float(value) if value not in (None, "") else 0.0
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) else 0.0


def image_type(dataset: Dataset) -> tuple[str, ...]:
    """Values of Image Type in capitals, trimmed (PS3.3 C.7.6.1.1.2)."""
    value = dataset.get("ImageType") or []
    words = [value] if isinstance(value, str) else list(value)
    return tuple(str(word).strip().upper() for word in words)
