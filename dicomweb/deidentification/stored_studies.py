"""Studies of the running server as sources: which ones by FHIR (a study's patient, a cohort Group), pixels by DICOMweb.

https://hl7.org/fhir/R4/group.html; DICOM PS3.18 §10.4 (retrieve). The token decides what is seen, as for anybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Any

import httpx

from foramen.kernel.errors import InvalidRequestError, NotFoundError, UpstreamError

_UID_SYSTEM = "urn:dicom:uid"
_DICOM = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_PAGE = 500


@dataclass(frozen=True, slots=True)
class StoredStudy:
    """A study and the logical id of its patient."""

    study_instance_uid: str
    patient: str


class StoredStudies:
    """A client of the record and of the gateway.

    Parameters
    ----------
    http : carries the token
    fhir, dicom_web : base URLs
    """

    def __init__(self, http: httpx.Client, fhir: str, dicom_web: str) -> None:
        self._http, self._fhir, self._dicom_web = http, fhir, dicom_web

    def study(self, uid: str) -> StoredStudy:
        """Return one study.

        Raises
        ------
        NotFoundError
            The record does not know it, or the token may not see it.
        """
        found = list(self._studies({"identifier": f"{_UID_SYSTEM}|urn:oid:{uid}"}))
        if not found:
            raise NotFoundError("The record knows no such study")
        return found[0]

    def cohort(self, group: str) -> list[StoredStudy]:
        """Return the studies of a Group's patients.

        Raises
        ------
        NotFoundError
            There is no such Group.
        InvalidRequestError
            Its members are not listed (it is a definition), or are no patients.
        """
        content = self._json(f"{self._fhir}/Group/{group}", {})
        members = [
            item["entity"].get("reference", "") for item in content.get("member", ()) if not item.get("inactive")
        ]
        if not members or not all(member.startswith("Patient/") for member in members):
            raise InvalidRequestError("A cohort is a Group whose members are patients", issue_code="value")
        studies = []
        for member in dict.fromkeys(members):
            studies += list(self._studies({"patient": member}))
        return studies

    def instances(self, study: StoredStudy) -> Iterator[bytes]:
        """Yield the stored files of a study, one by one, so that memory holds one instance.

        Raises
        ------
        NotFoundError
            The gateway does not have it.
        """
        url = f"{self._dicom_web}/studies/{study.study_instance_uid}"
        for series, instance in self._named(url):
            yield from _parts(self._get(f"{url}/series/{series}/instances/{instance}", {}, _DICOM))

    def _named(self, url: str) -> list[tuple[str, str]]:
        """Return series and instance UIDs of a study, all pages, before the first is fetched."""
        found: list[tuple[str, str]] = []
        while True:
            query = {"limit": str(_PAGE), "offset": str(len(found))}
            rows = self._json(f"{url}/instances", query, accept="application/dicom+json")
            if not rows:
                return found
            found += [(row["0020000E"]["Value"][0], row["00080018"]["Value"][0]) for row in rows]

    def _studies(self, query: dict[str, str]) -> Iterator[StoredStudy]:
        url: str | None = f"{self._fhir}/ImagingStudy"
        parameters = {**query, "_count": str(_PAGE), "_elements": "identifier,subject"}
        while url is not None:
            bundle = self._json(url, parameters)
            for entry in bundle.get("entry", ()):
                found = _stored(entry["resource"])
                if found is not None:
                    yield found
            following = next((one["url"] for one in bundle.get("link", ()) if one["relation"] == "next"), None)
            # Published links name the public origin; the base at hand is the way there.
            url = None if following is None else self._here(following)
            parameters = {}

    def _here(self, link: str) -> str:
        path, _, query = link.partition("?")
        below = path.partition("/fhir")[2].strip("/")
        return f"{self._fhir}/{below}?{query}" if below else f"{self._fhir}?{query}"

    def _json(self, url: str, query: dict[str, str], accept: str = "application/fhir+json") -> Any:
        response = self._get(url, query, accept)
        return [] if response.status_code == 204 else response.json()

    def _get(self, url: str, query: dict[str, str], accept: str) -> httpx.Response:
        try:
            response = self._http.get(url, params=query or None, headers={"Accept": accept})
        except httpx.HTTPError as exc:
            raise UpstreamError("The server does not answer") from exc
        if response.status_code in (404, 410):
            raise NotFoundError("The server has no such thing, or the token may not see it")
        if response.status_code not in (200, 204):
            raise UpstreamError(f"The server answered {response.status_code}")
        return response


def _stored(resource: dict[str, Any]) -> StoredStudy | None:
    uids = [one["value"] for one in resource.get("identifier", ()) if one.get("system") == _UID_SYSTEM]
    patient = resource.get("subject", {}).get("reference", "")
    if not uids or not patient.startswith("Patient/"):
        return None
    return StoredStudy(uids[0].removeprefix("urn:oid:"), patient.removeprefix("Patient/"))


def _parts(response: httpx.Response) -> Iterator[bytes]:
    """Parts of a multipart/related answer (RFC 2387)."""
    head = Message()
    head["Content-Type"] = response.headers.get("content-type", "")
    boundary = head.get_param("boundary")
    if not isinstance(boundary, str):
        yield response.content
        return
    for part in response.content.split(f"--{boundary}".encode())[1:-1]:
        yield part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
