"""The record as the caller may see it: FHIR over HTTP with the caller's own token (ADR 0035).

https://hl7.org/fhir/R4/http.html. Whatever decides over Tasks there, decides over workitems here; besides, the workitem
of a study that is closed to the caller is left out (ADR 0040).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import httpx

from dicomweb.workitems.workitem import Resource, id_of, uid_of
from foramen.kernel.errors import ConflictError, DeletedError, ForbiddenError, InteropError, NotFoundError
from foramen.kernel.fhir_client import FhirClient
from terminology import systems

Shown = Callable[[list[Resource]], Awaitable[list[Resource]]]


class _WithToken:
    """An HTTP client that shows a caller's token; connections are shared by all callers."""

    def __init__(self, http: httpx.AsyncClient, token: str, trace_id: str) -> None:
        self._http = http
        self._own = {"Authorization": f"Bearer {token}", "traceparent": f"00-{trace_id}-{trace_id[:16]}-01"}

    async def request(self, method: str, url: str, *, headers: dict[str, str], **options: Any) -> httpx.Response:
        return await self._http.request(method, url, headers=headers | self._own, **options)


class Record:
    """Tasks and Patients of one caller; `shown` leaves out the Tasks about studies that are closed to them."""

    def __init__(self, base: str, http: httpx.AsyncClient, token: str, trace_id: str, shown: Shown) -> None:
        self.shown = shown
        self.fhir = FhirClient(base, cast(httpx.AsyncClient, _WithToken(http, token, trace_id)))

    async def task(self, uid: str) -> Resource:
        """Return the Task that a workitem is.

        Raises
        ------
        NotFoundError
            There is none, or the caller may not know of it: the two cannot be told apart.
        """
        given = ("identifier", f"{systems.DICOM_UID}|urn:oid:{uid}")
        found = await self.fhir.search("Task", [given, ("_sort", "authored-on"), ("_count", "1")])
        if found:
            return await self._open(found[0])
        logical = id_of(uid)
        if logical is None:
            raise NotFoundError("No such workitem")
        try:
            task = await self.fhir.read(f"Task/{logical}")
        except (NotFoundError, DeletedError):
            raise NotFoundError("No such workitem") from None
        if uid_of(task) != uid:  # it was given another UID, and has only that one
            raise NotFoundError("No such workitem")
        return await self._open(task)

    async def _open(self, task: Resource) -> Resource:
        if not await self.shown([task]):
            raise NotFoundError("No such workitem")
        return task

    async def patients(self, tasks: list[Resource]) -> dict[str, Resource]:
        """`Patient/id` → Patient of the Tasks, as far as the caller may read them."""
        names = {str(task.get("for", {}).get("reference", "")) for task in tasks}
        ids = sorted(name.removeprefix("Patient/") for name in names if name.startswith("Patient/"))
        found: dict[str, Resource] = {}
        for start in range(0, len(ids), 100):
            asked = [("_id", ",".join(ids[start : start + 100])), ("_count", "100")]
            try:
                people = await self.fhir.search("Patient", asked)
            except (ForbiddenError, NotFoundError):
                return {}
            found |= {f"Patient/{one['id']}": one for one in people if one["resourceType"] == "Patient"}
        return found

    async def write(self, task: Resource) -> Resource:
        """Write a Task that was read before, unless somebody changed it meanwhile.

        Raises
        ------
        ConflictError
            Somebody did.
        """
        try:
            return await self.fhir.update(task, if_match=str(task["meta"]["versionId"]))
        except InteropError as error:
            if error.status in (409, 412):
                raise ConflictError("The workitem was changed meanwhile") from error
            raise
