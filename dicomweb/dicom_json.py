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

from foramen.kernel.log import get_log

BulkUri = Callable[[DataElement], str]


def dicom_json(dataset: Dataset, bulk_uri: BulkUri | None = None, threshold_bytes: int = 1024) -> dict[str, Any]:
    """Write a dataset as DICOM JSON.

    Parameters
    ----------
    dataset : without file meta information
    bulk_uri : URI of an element whose binary value is longer than `threshold_bytes`; without it values stay inline
    threshold_bytes : longest inline binary value

    Returns
    -------
    Tag → attribute.
    """
    model: dict[str, Any] = {}
    dropped = 0
    for tag in list(dataset.keys()):  # a data set iterates over elements, each decoded
        try:
            model[f"{tag:08X}"] = dataset[tag].to_json_dict(bulk_uri, threshold_bytes)
        except Exception:  # noqa: BLE001  any damage of one element must not hide the others
            dropped += 1
    if dropped:
        get_log().warning("elements left out of the DICOM JSON model", count=dropped)
    return model


@lru_cache(maxsize=8192)
def known_vr(tag: int) -> str | None:
    """VR that the dictionary gives a tag; None: its private creator decides, or nobody knows it."""
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return None
