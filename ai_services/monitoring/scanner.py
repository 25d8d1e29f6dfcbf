"""Which scanner a series comes from: asked of the archive by QIDO-RS, as the record does not say.

DICOM PS3.18 §10.6 (search), PS3.3 §C.7.5.1 (Manufacturer, Manufacturer's Model Name)
"""

from __future__ import annotations

from typing import Any

import httpx

from foramen.kernel.errors import UpstreamError

_MANUFACTURER, _MODEL = "00080070", "00081090"
_NOT_THERE = frozenset({204, 404})


class ScannerLookup:
    """Manufacturer and model by series, asked once each.

    Parameters
    ----------
    http : client with the caller's token
    base_url : of the DICOMweb service
    """

    def __init__(self, http: httpx.AsyncClient, base_url: str) -> None:
        self._http, self._base = http, base_url.rstrip("/")
        self._known: dict[str, str | None] = {}

    async def of(self, study_instance_uid: str, series_instance_uid: str) -> str | None:
        """Scanner of a series; None where the archive does not know it or the images do not say.

        Raises
        ------
        UpstreamError
            The archive does not answer: that is no scanner without a name.
        """
        if series_instance_uid not in self._known:
            self._known[series_instance_uid] = await self._ask(study_instance_uid, series_instance_uid)
        return self._known[series_instance_uid]

    async def _ask(self, study: str, series: str) -> str | None:
        query = {"SeriesInstanceUID": series, "includefield": "Manufacturer,ManufacturerModelName"}
        headers = {"Accept": "application/dicom+json"}
        try:
            answer = await self._http.get(f"{self._base}/studies/{study}/series", params=query, headers=headers)
        except httpx.HTTPError as exc:
            raise UpstreamError("The archive does not answer") from exc
        if answer.status_code in _NOT_THERE:
            return None
        if answer.status_code != 200:
            raise UpstreamError(f"The archive refused a search ({answer.status_code})")
        for attributes in answer.json():
            words = [_text(attributes, tag) for tag in (_MANUFACTURER, _MODEL)]
            return " ".join(word for word in words if word) or None
        return None


def _text(attributes: dict[str, Any], tag: str) -> str:
    values = attributes.get(tag, {}).get("Value", [])
    return str(values[0]).strip() if values and values[0] is not None else ""
