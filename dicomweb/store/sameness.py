"""Is a second delivery under a SOP Instance UID the same instance? Pure functions (DICOM PS3.3 §C.12.1.1, PS3.5 §9)."""

from __future__ import annotations

import hashlib
from io import BytesIO

import orjson
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import get_expected_length

from dicomweb.dicom_json import dicom_json
from dicomweb.instance_header import InstanceHeader

_MOST_DECODED_BYTES = 512 * 1024 * 1024
"""Larger images are compared as they are stored: to decode what a sender only says is large would be too much."""


def is_same(original: bytes, header: InstanceHeader, delivered: bytes) -> bool:
    """Same study, series and class, and the same content."""
    if delivered == original:
        return True
    dataset = dcmread(BytesIO(original))
    names = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPClassUID)
    if names != (header.study_instance_uid, header.series_instance_uid, header.sop_class_uid):
        return False
    return _fingerprint(dataset) == _fingerprint(dcmread(BytesIO(delivered)))


def _fingerprint(dataset: Dataset) -> str:
    """Hash of what the instance shows: decoded pixels where there are any, else its whole content.

    A sender may deliver one image again in another lossless transfer syntax: that is the same instance.
    """
    digest = hashlib.sha256()
    if "PixelData" in dataset and "Rows" in dataset:
        try:
            if get_expected_length(dataset) > _MOST_DECODED_BYTES:
                raise ValueError("too large to decode")
            pixels = dataset.pixel_array
        except Exception:  # noqa: BLE001  no codec for it (video), or too large: compare the stored bytes
            digest.update(bytes(dataset.PixelData))
        else:
            digest.update(pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())
    else:
        model = dicom_json(dataset)
        digest.update(orjson.dumps(model, option=orjson.OPT_SORT_KEYS, default=str))
    return digest.hexdigest()
