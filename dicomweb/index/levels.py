"""Which level an attribute belongs to: patient and study modules, series-like modules, all others the instance.

`levels.json` was taken from the module tables of DICOM PS3.3 (Annexes A and C, as highdicom ships them): of the study
are the modules of the information entities Patient and Study, the patient group (0010) with its retired elements, and
what modalities write of request and visit; of the series those of Series, Equipment and Frame of Reference, less what
the modules of an image say again for each image.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Literal

Level = Literal["study", "series", "instance"]
LEVELS: tuple[Level, ...] = ("study", "series", "instance")
_TABLE: dict[str, list[str]] = json.loads(files("dicomweb.index").joinpath("levels.json").read_text("utf-8"))
STUDY_TAGS = frozenset(_TABLE["study"])
SERIES_TAGS = frozenset(_TABLE["series"])


def level_of(tag: str) -> Level:
    """Return the level of an attribute.

    Parameters
    ----------
    tag : eight hexadecimal digits, upper case
    """
    if tag in STUDY_TAGS:
        return "study"
    return "series" if tag in SERIES_TAGS else "instance"
