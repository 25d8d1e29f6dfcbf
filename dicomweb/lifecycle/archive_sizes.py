"""Bytes of the stored studies, as the archive counts them.

https://orthanc.uclouvain.be/book/users/rest.html (statistics)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from dicomweb.lifecycle.capacity import StudySize
from foramen.kernel.errors import UpstreamError

_PAGE = 200


@dataclass(frozen=True, slots=True)
class ArchiveSizes:
    """All studies of an archive, and the bytes of everything in it."""

    studies: tuple[StudySize, ...]
    disk_size: int


def measure(http: httpx.Client, most: int = 5000) -> ArchiveSizes:
    """Ask for the size of every study, of the first `most` when there are more.

    A study counts as its modality with the most instances; what we made ourselves (SEG, SR) makes it no other.

    Raises
    ------
    UpstreamError
        The archive does not answer.
    """
    found: list[StudySize] = []
    try:
        disk_size = int(_json(http, "/statistics")["TotalDiskSize"])
        since = 0
        while len(found) < most:
            page = _json(http, f"/studies?since={since}&limit={_PAGE}")
            if not page:
                break
            since += len(page)
            for study in page[: most - len(found)]:
                size = _json(http, f"/studies/{study}/statistics")
                found.append(StudySize(_modality(http, study), int(size["CountInstances"]), int(size["DicomDiskSize"])))
    except (httpx.HTTPError, KeyError, ValueError) as exc:
        raise UpstreamError("The image archive does not answer") from exc
    return ArchiveSizes(tuple(found), disk_size)


def _modality(http: httpx.Client, study: str) -> str:
    counts: dict[str, int] = {}
    for series in _json(http, f"/studies/{study}/series"):
        name = str(series["MainDicomTags"].get("Modality") or "unknown")
        counts[name] = counts.get(name, 0) + len(series["Instances"])
    return max(counts, key=lambda name: (counts[name], name), default="unknown")


def _json(http: httpx.Client, path: str) -> Any:
    response = http.get(path)
    response.raise_for_status()
    return response.json()
