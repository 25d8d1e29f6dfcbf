"""Take what names a person out of resources that stay: displays and identifiers beside references to them. Pure.

https://hl7.org/fhir/R4/references.html#Reference. The reference itself stays; ids are random and name nobody.
"""

from __future__ import annotations

from collections.abc import Set
from decimal import Decimal
from typing import Any

import msgspec

from fhir_server.model.references import normalise_reference

_DECODER = msgspec.json.Decoder(float_hook=Decimal)
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_GONE = ("display", "_display", "identifier")


def scrubbed(content: bytes, references: Set[str], marks: Set[str], own_url: str) -> bytes | None:
    """Return the resource without what names the person, or None when there is nothing to take out.

    Parameters
    ----------
    references : `Type/id` of what is erased
    marks : texts that name the person; a narrative that holds one is taken out
    """
    data: Any = _DECODER.decode(content)
    changed = _walk(data, references, own_url)
    narrative = str((data.get("text") or {}).get("div", ""))
    if narrative and (changed or any(mark in narrative for mark in marks)):
        del data["text"]  # It tells the same once more, in words.
        changed = True
    return _ENCODER.encode(data) if changed else None


def _walk(value: Any, references: Set[str], own_url: str) -> bool:
    changed = False
    if isinstance(value, dict):
        reference = value.get("reference")
        if isinstance(reference, str) and _names(reference, references, own_url):
            for name in _GONE:
                changed |= value.pop(name, None) is not None
        for item in value.values():
            changed |= _walk(item, references, own_url)
    elif isinstance(value, list):
        for item in value:
            changed |= _walk(item, references, own_url)
    return changed


def _names(reference: str, references: Set[str], own_url: str) -> bool:
    return normalise_reference(reference, own_url).partition("/_history/")[0] in references
