"""The job of `$subject-export`: everything of one person's record, who saw it, and a page to read it (PIPL art. 45).

The resources are a bulk export of one patient with the caller's access (`bulk/export.py`); what comes behind them is
written in one go once that is complete, so that a job begun again makes it anew.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import orjson

from fhir_server.access.institutions import wall_of
from fhir_server.access.policy import Access
from fhir_server.bulk.export import Export
from fhir_server.bulk.files import NdjsonFiles, sync_folder
from fhir_server.bulk.plan import plan, types_of
from fhir_server.bulk.request import ExportRequest
from fhir_server.bulk.resolved import resolved
from fhir_server.bulk.seen import seen
from fhir_server.interactions.internal import internal_call
from fhir_server.jobs.job import Job
from fhir_server.operations.access_log import access_log
from fhir_server.search.completeness import WatchedParser
from fhir_server.search.hashing import resource_key
from fhir_server.search.parameters import patient_base
from fhir_server.server import Server
from fhir_server.store import erasing, reading
from fhir_server.store.changes import Stored
from fhir_server.subject_rights.attachments import leads
from fhir_server.subject_rights.summary import Summary, page
from foramen.kernel.access_context import ADMINISTRATOR, AccessContext, parse_scopes
from foramen.kernel.errors import ForbiddenError
from foramen.kernel.identifiers import new_trace_id

KIND = "subject-export"
HISTORY, ACCESS_LOG, BINARY, SUMMARY = "history", "access-log", "attachment", "summary"
_LEFT_OUT = frozenset({"AuditEvent", "Group"})
"""Accesses are told redacted (`access-log`); a Group names other people."""
_PAGE = 500


def exported_types(access: Access) -> tuple[str, ...]:
    """Return the resource types of the export.

    Raises
    ------
    ForbiddenError
        The token reaches none.
    """
    found = types_of(ExportRequest("patient", ""), access)
    types = tuple(name for name in found if name not in _LEFT_OUT)
    if not types:
        raise ForbiddenError("The token has no scope to search and read any resource type")
    return types


async def access_of(server: Server, context: AccessContext) -> Access:
    """Return what the export may read: all of it for an administrator, who answers a request on paper.

    The patient's own sign-in sees what its reads see: what is released, as far as the scopes of the app go.
    """
    if context.has_scope(ADMINISTRATOR):
        inside = AccessContext(context.subject, context.client_id, parse_scopes("system/*.rs"))
        return Access(inside, None, server.own_url)
    consent = await server.consents.policy(context) if server.consents is not None else None
    closed = await server.restrictions.policy(context)
    return Access(context, consent, server.own_url, closed, wall_of(context, server.institutions, server.own_url))


class SubjectExport:
    """One run of the job."""

    def __init__(self, server: Server, job: Job, folder: Path) -> None:
        self._server = server
        self._job = job
        self._folder = folder
        self._patient: str = job.request["patient"]
        self._records: list[dict[str, Any]] = []

    async def run(self) -> None:
        """Write all files; after the return the manifest can be made from the job's state."""
        if self._job.state.get("complete"):
            return
        access = await access_of(self._server, self._job.owner)
        await self._resources(access)
        state = dict(self._job.state)
        await self._job.save(progress="writing what comes with it")
        lines = partial(_lines, self._folder, list(state["files"]))
        if self._job.request["history"]:
            await self._history(access)
        await self._attachments(access, *await asyncio.to_thread(leads, lines()))
        accesses = await self._access_log()
        studies = await asyncio.to_thread(studies_of, lines(), self._server.own_url)
        text = await asyncio.to_thread(self._page, lines, accesses or [], studies, state)
        await asyncio.to_thread(self._write, SUMMARY, "summary.html", text.encode())
        state["files"] = [*state["files"], *self._records]
        state |= {"complete": True, "studies": studies, "access_log": accesses is not None}
        await self._job.save(state, "complete")

    async def _resources(self, access: Access) -> None:
        server, request = self._server, ExportRequest.from_json(self._job.request["export"])
        wanted = plan(request, access, WatchedParser(server.limits, server.own_url, access), [self._patient])
        async with self._job.connections.lend() as connection:
            wanted = await resolved(connection, server, wanted, arranged=True)
        export = Export(
            self._job,
            request,
            wanted,
            self._folder,
            server.limits,
            settle_audit=server.audit_indexer.settle,
            seen=partial(seen, access),
            deletions=False,
        )
        await export.run()

    async def _history(self, access: Access) -> None:
        """Write earlier versions of what is in the record today, each as the caller may see it."""
        key = resource_key("Patient", self._patient)
        for name in exported_types(access):
            keep = seen(access, name)
            files = NdjsonFiles(self._folder, HISTORY, name, self._server.limits.export_file_bytes)
            after = (-(2**63), 0)
            async with self._job.connections.lend() as connection:
                while found := await erasing.versions_of(connection, name, patient_base(name) ^ key, after, _PAGE):
                    after = (found[-1].row, found[-1].version)
                    await asyncio.to_thread(_write_versions, files, found, key, keep)
            await asyncio.to_thread(files.close)
            self._records += files.records

    async def _attachments(self, access: Access, named: set[str], keys: set[int]) -> None:
        """Write Binaries that the record refers to, or that name something of it as their context, if they may be read.

        Parameters
        ----------
        named : ids of those that the record refers to
        keys : of the resources of the record
        """
        if not access.may("Binary", "r"):
            return
        files = NdjsonFiles(self._folder, BINARY, "Binary", self._server.limits.export_file_bytes)
        bound = access.compartment_key("Binary", "r")
        async with self._job.connections.lend() as connection:
            named = named.union(await erasing.binaries_in(connection, sorted(keys)))
            for logical_id in sorted(named):
                stored = await reading.read(connection, "Binary", logical_id)
                await access.learn(connection, stored)
                if stored is None or stored.content is None or not keys.issuperset(stored.patients):
                    continue
                if (bound is None or bound in stored.patients) and not access.hides(stored):
                    await asyncio.to_thread(files.write, _line(stored.content))
        await asyncio.to_thread(files.close)
        self._records += files.records

    async def _access_log(self) -> list[dict[str, Any]] | None:
        """Write who saw the record, as `$access-log` tells it; None when the token may not ask."""
        files = NdjsonFiles(self._folder, ACCESS_LOG, "AuditEvent", self._server.limits.export_file_bytes)
        events: list[dict[str, Any]] = []
        path, query = f"/fhir/Patient/{self._patient}/$access-log", urlencode({"_count": _PAGE})
        try:
            while True:
                call = await internal_call(self._server, self._job.owner, path, query, self._trace_id())
                answer = orjson.loads((await access_log(call)).body)
                found = [item["resource"] for item in answer.get("entry", ())]
                events += found
                await asyncio.to_thread(files.write, b"".join(orjson.dumps(event) + b"\n" for event in found))
                links = [item["url"] for item in answer["link"] if item["relation"] == "next"]
                if not links:
                    break
                query = urlsplit(links[0]).query
        except ForbiddenError:
            return None
        await asyncio.to_thread(files.close)
        self._records += files.records
        return events

    def _trace_id(self) -> str:
        return self._job.request.get("trace_id") or new_trace_id()

    def _page(self, lines: Any, events: list[dict[str, Any]], studies: list[dict[str, Any]], state: Any) -> str:
        summary = Summary(self._patient, self._server.limits.subject_summary_rows)
        for line in lines():
            summary.add(orjson.loads(line))
        for event in events:
            summary.add_access(event)
        return page(summary, studies, state["at"])

    def _write(self, kind: str, name: str, content: bytes) -> None:
        name = f"{secrets.token_hex(8)}-{name}"
        descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._folder)
        self._records.append({"kind": kind, "type": "text/html", "name": name, "bytes": len(content), "count": 1})


def _line(content: bytes) -> bytes:
    """Return a resource as one line."""
    return content.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"


def _write_versions(files: NdjsonFiles, found: list[Stored], key: int, keep: Any) -> None:
    for stored in found:
        line = stored.content if key in stored.patients else None
        if line is not None and (keep is None or keep(line) is not None):
            files.write(_line(line))


def _lines(folder: Path, records: list[dict[str, Any]]) -> Iterable[bytes]:
    """Yield the lines of some files, as far as they count."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for record in records:
        left = record["bytes"]
        with (folder / record["name"]).open("rb") as file:
            for line in file:
                left -= len(line)
                if left < 0:
                    break
                yield line


def studies_of(lines: Iterable[bytes], own_url: str) -> list[dict[str, Any]]:
    """Return what to fetch pixels by: Study Instance UID, DICOMweb URL, date, modalities, numbers of what there is.

    The same token reads them (https://dicom.nema.org/medical/dicom/current/output/html/part18.html#sect_10.4).
    """
    origin = own_url.removesuffix("/fhir")
    found = []
    for line in lines:
        if b'"ImagingStudy"' not in line:
            continue
        study = orjson.loads(line)
        if study.get("resourceType") != "ImagingStudy":
            continue
        uids = [
            i["value"] for i in study.get("identifier") or () if i.get("system") == "urn:dicom:uid" and i.get("value")
        ]
        for uid in (text.removeprefix("urn:oid:") for text in uids):
            found.append(
                {
                    "imagingStudy": f"ImagingStudy/{study['id']}",
                    "uid": uid,
                    "url": f"{origin}/dicom-web/studies/{uid}",
                    "started": study.get("started"),
                    "modalities": [coding.get("code") for coding in study.get("modality") or ()],
                    "series": study.get("numberOfSeries"),
                    "instances": study.get("numberOfInstances"),
                }
            )
    return found
