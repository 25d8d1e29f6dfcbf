"""DICOM JSON model of a dataset, element by element (PS3.18 Annex F); what cannot be written is left out, not guessed.

pydicom's own `suppress_invalid_tags` switches strict reading on for the whole process while it runs. Two threads at
once can leave it on for good, and other threads meanwhile refuse what they should read with a warning. So the loop is
ours.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement

from foramen.kernel.log import get_log

BulkUri = Callable[[DataElement], str]

_MOST_KEPT = 8192
LONGEST_KEPT_BYTES = 256
DECIDED_BY_THEIR_BYTES = frozenset(
    (
        *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH"),
        *("SL", "SS", "ST", "SV", "TM", "UC", "UI", "UL", "UR", "US", "UT", "UV"),
    )
)
"""VRs of which the bytes of one element and its character set decide what it is in JSON, whatever else is there."""
_kept: dict[tuple[Any, ...], dict[str, Any]] = {}


def dicom_json(dataset: Dataset, bulk_uri: BulkUri | None = None, threshold_bytes: int = 1024) -> dict[str, Any]:
    """Write a dataset as DICOM JSON.

    Parameters
    ----------
    dataset : without file meta information
    bulk_uri : URI of an element whose binary value is longer than `threshold_bytes`; without it values stay inline
    threshold_bytes : longest inline binary value

    Returns
    -------
    Tag → attribute. An attribute may be shared with the models of other instances: it is not to be changed.
    """
    model: dict[str, Any] = {}
    dropped = 0
    named = dataset.original_character_set
    characters = tuple(named) if isinstance(named, list) else named
    for tag, element in list(dataset.items()):
        try:
            key = _key(int(tag), element, characters)
            known = _kept.get(key) if key is not None else None
            if known is None:
                known = dataset[tag].to_json_dict(bulk_uri, threshold_bytes)
                if key is not None:
                    _keep(key, known)
            model[f"{tag:08X}"] = known
        except Exception:  # noqa: BLE001  any damage of one element must not hide the others
            dropped += 1
    if dropped:
        get_log().warning("elements left out of the DICOM JSON model", count=dropped)
    return model


def _key(tag: int, element: DataElement | RawDataElement, characters: Any) -> tuple[Any, ...] | None:
    """What decides the JSON of an element not decoded yet; None: something else does as well, or it is too long.

    The slices of a series are the same in nine of ten elements, and decoding is most of what an instance costs.
    """
    if not isinstance(element, RawDataElement) or element.value is None or len(element.value) > LONGEST_KEPT_BYTES:
        return None
    vr = element.VR or known_vr(tag)
    return (tag, vr, element.value, element.is_little_endian, characters) if vr in DECIDED_BY_THEIR_BYTES else None


@lru_cache(maxsize=8192)
def known_vr(tag: int) -> str | None:
    """VR that the dictionary gives a tag; None: its private creator decides, or nobody knows it."""
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return None


def _keep(key: tuple[Any, ...], attribute: dict[str, Any]) -> None:
    if len(_kept) >= _MOST_KEPT:
        _kept.clear()
    _kept[key] = attribute
