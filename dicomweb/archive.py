"""Stages 1 and 3: what we ask of Orthanc, and nothing more. Headers of our own clients are never passed on to it.

https://orthanc.uclouvain.be/book/users/rest.html
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import httpx

from dicomweb.archive_writer import ArchiveAnswerError, ArchiveWriter
from foramen.kernel.errors import NotFoundError, UpstreamError

if TYPE_CHECKING:
    from dicomweb.lifecycle.unpacking import Unpacking

_RETRY_HEADERS = {"Retry-After": "5"}
_CHUNK_BYTES = 256 * 1024
_CACHE_BYTES = 64 * 1024 * 1024
_WRITERS = 16
_IDLE_S = 0.4
"""Orthanc ends a connection after half a second without a request."""
_ASKED = 3
_ENDED = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
Acknowledged = tuple[str, str]
"""Orthanc id of an instance, and "Success" or "AlreadyStored"."""


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """One instance as the archive names it."""

    orthanc_id: str
    sop_instance_uid: str


class ArchiveError(UpstreamError):
    """Orthanc does not answer, or refuses what it should do; the client may try again (RFC 9110 §15.6.4)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, headers=_RETRY_HEADERS)


class Archive:
    """A small client of Orthanc's REST API."""

    def __init__(
        self, base_url: str, username: str, password: str, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=base_url,
            auth=httpx.BasicAuth(username, password),
            timeout=httpx.Timeout(60.0, connect=3.0),
            limits=httpx.Limits(max_connections=12, keepalive_expiry=_IDLE_S),
            transport=transport,
            trust_env=False,
        )
        self.writer = ArchiveWriter(base_url, username, password)
        self._threads = ThreadPoolExecutor(_WRITERS, thread_name_prefix="archive")
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._recent_bytes = 0
        self.unpacking: Unpacking | None = None
        """Makes packed files whole that Orthanc cannot read; set where there is a second folder."""

    async def close(self) -> None:
        """Close the connections."""
        if self.unpacking is not None:
            await self.unpacking.close()
        await self._http.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.writer.close()

    async def is_up(self) -> bool:
        """Whether Orthanc answers."""
        try:
            return (await self._http.get("/system", timeout=3.0)).status_code == 200
        except httpx.HTTPError:
            return False

    async def _send(self, method: str, path: str, content: Any = None, **options: Any) -> httpx.Response:
        message = self._http.build_request(method, path, content=content, **options)
        response = await self._answer(message, asked=1 if isinstance(content, AsyncIterator) else _ASKED)
        if response.status_code == 404:
            raise NotFoundError("Not in the image archive")
        return response

    async def _answer(self, message: httpx.Request, asked: int = _ASKED, *, stream: bool = False) -> httpx.Response:
        """Ask, and ask anew where the connection ends without an answer: Orthanc may just have closed an idle one.

        Nothing we ask does more when it is asked twice (RFC 9110 §9.2.2): look-ups, and deletions of what is there.
        """
        while True:
            asked -= 1
            try:
                return await self._http.send(message, stream=stream)
            except httpx.HTTPError as exc:
                if not asked or not isinstance(exc, _ENDED):
                    raise ArchiveError("The image archive does not answer") from exc

    async def _json(self, method: str, path: str, **options: Any) -> Any:
        response = await self._send(method, path, **options)
        if response.status_code != 200:
            raise ArchiveError(f"The image archive answered {response.status_code}")
        return response.json()

    async def store(self, content: Any) -> tuple[str, str] | None:
        """Store one instance. Returns (orthanc id, "Success" | "AlreadyStored"), or None when Orthanc cannot parse it.

        Parameters
        ----------
        content : bytes, or a list of pieces of them; or asynchronous chunks, for what is too large for memory

        Raises
        ------
        ArchiveError
            Nothing was acknowledged: the archive is down, full or refused for a reason that is not the instance's.
        """
        if isinstance(content, bytes | list):
            return await asyncio.get_running_loop().run_in_executor(self._threads, self.store_now, content)
        response = await self._send(
            "POST", "/instances", content=content, headers={"Content-Type": "application/dicom"}
        )
        if response.status_code == 400:
            return None
        if response.status_code != 200:
            raise ArchiveError(f"The image archive answered {response.status_code}")
        body = response.json()
        return str(body["ID"]), str(body["Status"])

    async def store_each(
        self,
        contents: Sequence[Callable[[], list[memoryview]]],
        at_once: int,
        answers: dict[int, Acknowledged | ArchiveError | None],
    ) -> None:
        """Store several instances; after a fault, or when it is cancelled, no more are tried.

        Parameters
        ----------
        contents : each returns the pieces of an instance; called in a thread
        at_once : how many are sent at the same time
        answers : gets for each, by its number, what `store` returns or raises
        """
        waiting, taking, faults = deque(range(len(contents))), Lock(), list[ArchiveError]()

        def work() -> None:
            while True:
                with taking:
                    number = waiting.popleft() if waiting else None
                if number is None:
                    return
                try:
                    if faults:
                        raise faults[0]
                    answers[number] = self.store_now(contents[number]())
                except ArchiveError as error:
                    faults.append(error)
                    answers[number] = error

        loop = asyncio.get_running_loop()
        threads = [loop.run_in_executor(self._threads, work) for _ in range(min(at_once, len(contents)))]
        try:
            await asyncio.gather(*threads)
        finally:
            with taking:
                waiting.clear()

    def store_now(self, content: bytes | list[memoryview]) -> tuple[str, str] | None:
        """As `store`, from a thread that may wait."""
        try:
            return self.writer.store(content)
        except ArchiveAnswerError as error:
            raise ArchiveError(error.message) from error

    def find_now(self, sop_instance_uids: Sequence[str]) -> set[str]:
        """As `find_instances`, from a thread that may wait."""
        try:
            return self.writer.find(sop_instance_uids)
        except ArchiveAnswerError as error:
            raise ArchiveError(error.message) from error

    async def find_instances(self, sop_instance_uids: Sequence[str]) -> set[str]:
        """Orthanc ids of all instances with one of these UIDs, in one question."""
        if not sop_instance_uids:
            return set()
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.find_now, sop_instance_uids)

    async def find_instance(self, sop_instance_uid: str) -> list[str]:
        """Orthanc ids of the instances with this SOP Instance UID (more than one when patients were mixed up)."""
        found = await self._json("POST", "/tools/lookup", content=sop_instance_uid)
        return [str(item["ID"]) for item in found if item["Type"] == "Instance"]

    async def study_instances(self, study_instance_uid: str) -> list[StoredInstance]:
        """All instances the archive holds of one study; empty when it holds none."""
        found = await self._json("POST", "/tools/lookup", content=study_instance_uid)
        instances = []
        for study in (item["ID"] for item in found if item["Type"] == "Study"):
            try:
                rows = await self._json("GET", f"/studies/{study}/instances")
            except NotFoundError:
                continue
            instances += [StoredInstance(row["ID"], row["MainDicomTags"]["SOPInstanceUID"]) for row in rows]
        return instances

    async def study_contents(self, study_instance_uid: str) -> list[tuple[str, str, str]]:
        """(orthanc id, SOP Instance UID, attachment) of each instance of a study; empty when the archive holds none."""
        found = await self._json("POST", "/tools/lookup", content=study_instance_uid)
        contents = []
        for study in (item["ID"] for item in found if item["Type"] == "Study"):
            try:
                rows = await self._json("GET", f"/studies/{study}/instances")
            except NotFoundError:
                continue
            contents += [(str(r["ID"]), str(r["MainDicomTags"]["SOPInstanceUID"]), str(r["FileUuid"])) for r in rows]
        return contents

    async def delete(self, orthanc_id: str) -> None:
        """Delete one instance for good.

        Raises
        ------
        NotFoundError
            It is not there.
        """
        await self._json("DELETE", f"/instances/{orthanc_id}")
        self.forget(orthanc_id)

    async def study_count(self, study_instance_uid: str) -> int:
        """How many instances the archive holds of a study."""
        found = await self._json("POST", "/tools/lookup", content=study_instance_uid)
        count = 0
        for study in (item["ID"] for item in found if item["Type"] == "Study"):
            try:
                count += int((await self._json("GET", f"/studies/{study}/statistics"))["CountInstances"])
            except NotFoundError:
                continue
        return count

    async def is_stable(self, study_instance_uid: str) -> bool:
        """Whether nothing of a study came for a while (`StableAge`); a study that is not there is stable."""
        found = await self._json("POST", "/tools/lookup", content=study_instance_uid)
        for study in (item["ID"] for item in found if item["Type"] == "Study"):
            try:
                if not (await self._json("GET", f"/studies/{study}")).get("IsStable", True):
                    return False
            except NotFoundError:
                continue
        return True

    async def count_studies(self) -> int:
        """How many studies the archive holds."""
        return int((await self._json("GET", "/statistics"))["CountStudies"])

    async def study_of(self, orthanc_id: str) -> str | None:
        """Study Instance UID of an instance; None when it is gone."""
        try:
            row = await self._json("GET", f"/instances/{orthanc_id}/study")
        except NotFoundError:
            return None
        return str(row["MainDicomTags"].get("StudyInstanceUID", "")) or None

    def forget(self, orthanc_id: str) -> None:
        """Forget a kept file: somebody deleted it and stored another one under its id."""
        self._recent_bytes -= len(self._recent.pop(orthanc_id, b""))

    async def instance_file(self, orthanc_id: str) -> tuple[str, str, int]:
        """(orthanc id, attachment, bytes) of the file of an instance."""
        row = await self._json("GET", f"/instances/{orthanc_id}")
        return orthanc_id, str(row["FileUuid"]), int(row["FileSize"])

    async def study_files(self, study_instance_uid: str) -> list[tuple[str, str, int]]:
        """(orthanc id, attachment, bytes) of every file of a study."""
        found = await self._json("POST", "/tools/lookup", content=study_instance_uid)
        files = []
        for study in (item["ID"] for item in found if item["Type"] == "Study"):
            rows = await self._json("GET", f"/studies/{study}/instances")
            files += [(str(row["ID"]), str(row["FileUuid"]), int(row["FileSize"])) for row in rows]
        return files

    async def study_uids(self, page: int = 500, since: int = 0) -> AsyncIterator[str]:
        """Study Instance UID of every study in the archive, from the given one on."""
        while True:
            rows = await self._json("GET", "/studies", params={"expand": "", "since": since, "limit": page})
            for row in rows:
                uid = row["MainDicomTags"].get("StudyInstanceUID")
                if uid:
                    yield uid
            if len(rows) < page:
                return
            since += page

    @asynccontextmanager
    async def open(self, orthanc_id: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open the stored file of an instance as a stream of chunks.

        Raises
        ------
        ArchiveError
            Orthanc does not answer; raised before the first chunk.
        """
        response = await self._file_of(orthanc_id)
        if response.status_code != 200 and self.unpacking is not None:
            await response.aclose()
            await self.unpacking.unpack((await self.instance_file(orthanc_id))[1])
            response = await self._file_of(orthanc_id)
        try:
            if response.status_code == 404:
                raise NotFoundError("Not in the image archive")
            if response.status_code != 200:
                raise ArchiveError(f"The image archive answered {response.status_code}")
            yield response.aiter_bytes(_CHUNK_BYTES)
        finally:
            await response.aclose()

    async def _file_of(self, orthanc_id: str) -> httpx.Response:
        return await self._answer(self._http.build_request("GET", f"/instances/{orthanc_id}/file"), stream=True)

    async def read(self, orthanc_id: str, *, keep: bool = True) -> bytes:
        """Return the stored file of an instance; the last few are kept, as frames of one instance are asked in a row.

        Instances never change (`OverwriteInstances` is off), so a kept file cannot be out of date.
        """
        kept = self._recent.get(orthanc_id)
        if kept is not None:
            self._recent.move_to_end(orthanc_id)
            return kept
        try:
            async with self.open(orthanc_id) as chunks:
                content = b"".join([chunk async for chunk in chunks])
        except httpx.HTTPError as exc:
            raise ArchiveError("The image archive broke off") from exc
        if keep and orthanc_id not in self._recent and len(content) <= _CACHE_BYTES // 2:
            self._recent[orthanc_id] = content
            self._recent_bytes += len(content)
            while self._recent_bytes > _CACHE_BYTES:
                self._recent_bytes -= len(self._recent.popitem(last=False)[1])
        return content
