"""Labels of studies: tags of the ImagingStudy in a system of their own, so that `_tag` finds them.

https://hl7.org/fhir/R4/resource.html#simple-tags
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from foramen.kernel.errors import InvalidRequestError
from terminology import systems

LABEL_SYSTEM = systems.IMAGE_LABEL
LONGEST = 40
MOST = 50


def label_of(typed: str) -> str:
    """Return a label as it is kept: NFC, single spaces, as FHIR wants codes to be.

    Raises
    ------
    InvalidRequestError
        Empty, too long, or with characters that cannot be read.
    """
    label = re.sub(r"\s+", " ", unicodedata.normalize("NFC", typed)).strip()
    if not label or len(label) > LONGEST or not label.isprintable():
        raise InvalidRequestError(f"A label has 1 to {LONGEST} characters")
    return label


def labels_of(resource: dict[str, Any]) -> list[str]:
    """Return the labels of an ImagingStudy."""
    tags = resource.get("meta", {}).get("tag", [])
    return sorted(str(tag["code"]) for tag in tags if tag.get("system") == LABEL_SYSTEM and tag.get("code"))


def meta_parameters(label: str) -> dict[str, Any]:
    """Return the body of `$meta-add` and `$meta-delete` for one label."""
    meta = {"tag": [{"system": LABEL_SYSTEM, "code": label, "display": label}]}
    return {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": meta}]}


def token(system: str, code: str) -> str:
    """Return a token parameter with its separators kept out of effect (FHIR R4 search, escaping)."""
    return f"{system}|" + re.sub(r"([\\,$|])", r"\\\1", code)
