"""Stage 7: WADO-RS and WADO-URI, put together: one handler for each resource of the Retrieve transaction, access first.

DICOM PS3.18 §10.4 (Retrieve transaction), §9 (URI service). Client headers are never passed on to Orthanc.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.requests import Request
from starlette.responses import Response

from dicomweb.archive import Archive
from dicomweb.database import Database
from dicomweb.retrieve.bulk_data import BulkData
from dicomweb.retrieve.codec_pool import CodecPool
from dicomweb.retrieve.fetched_files import FetchedFiles
from dicomweb.retrieve.frames import Frames
from dicomweb.retrieve.instances import Instances
from dicomweb.retrieve.nginx_handoff import NginxHandoff
from dicomweb.retrieve.rendered import Rendered
from dicomweb.retrieve.resources import OCTETS, Resources
from dicomweb.retrieve.series_plans import SeriesPlans
from dicomweb.retrieve.stored_files import StoredFiles
from dicomweb.retrieve.wado_uri import WadoUri
from dicomweb.study_index import StudyIndex
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InteropError
from foramen.kernel.log import get_log
from foramen.kernel.settings import Settings

_MOST_ARRIVALS = 1000
_INDEXED_S = 2.0
"""By then intake has indexed a study that Orthanc told of."""


class Wado:
    """The Retrieve transaction."""

    def __init__(self, settings: Settings, archive: Archive, index: StudyIndex, database: Database) -> None:
        storage = (settings.orthanc_storage or settings.home / "orthanc" / "storage").absolute()
        folder = settings.home.absolute() / "retrieve"
        self._fetched = FetchedFiles(folder / "fetched", settings.fetched_files_bytes)
        self.files = StoredFiles(database, archive, storage, self._fetched)
        memory = settings.codec_memory_mib * 1024 * 1024
        self.codec = CodecPool(settings.codec_processes, memory, settings.codec_timeout_s)
        nginx = NginxHandoff(enabled=settings.nginx_sendfile, storage=storage, plans=folder / "plans")
        self.plans = SeriesPlans(index, self.files)
        resources = Resources(settings, index, archive, self.files, self._fetched, self.codec, nginx, self.plans)
        self._instances, self._frames = Instances(resources), Frames(resources)
        self._bulk = BulkData(resources, self._frames)
        self._rendered = Rendered(resources, self._bulk)
        self._uri = WadoUri(resources, self._instances, self._rendered)
        self._arrivals: asyncio.Queue[str] = asyncio.Queue(_MOST_ARRIVALS)

    def arrived(self, study_instance_uid: str) -> None:
        """Have the files of a study found before somebody asks; one too many is found when it is asked for."""
        with contextlib.suppress(asyncio.QueueFull):
            self._arrivals.put_nowait(study_instance_uid)

    async def run(self) -> None:
        """Find the files of studies that arrived, until cancelled."""
        while True:
            study = await self._arrivals.get()
            await asyncio.sleep(_INDEXED_S)
            try:
                await self.files.fill(study)
            except InteropError as error:
                get_log().warning("files are found later", reason=error.message)

    async def close(self) -> None:
        """End the codec processes and remove what was fetched."""
        await self.codec.close()
        self._fetched.close()

    async def instances(self, request: Request, context: AccessContext) -> Response:
        """GET study, series or instance."""
        found, offer = await self._instances.choose(request, context)
        if offer.media_type == OCTETS:  # "Retained for historical reasons" (PS3.18 §10.4.4): the bulk data.
            return await self._bulk.everything(request, context)
        return await self._instances.answer(request, found, offer)

    async def frames(self, request: Request, context: AccessContext) -> Response:
        """GET …/frames/{list}."""
        return await self._frames.answer(request, context)

    async def bulk_data(self, request: Request, context: AccessContext) -> Response:
        """GET …/bulkdata/{path}."""
        return await self._bulk.value(request, context)

    async def all_bulk_data(self, request: Request, context: AccessContext) -> Response:
        """GET …/bulkdata and …/pixeldata."""
        return await self._bulk.everything(request, context)

    async def rendered(self, request: Request, context: AccessContext) -> Response:
        """GET …/rendered and …/thumbnail."""
        if request.url.path.endswith("/thumbnail"):
            return await self._rendered.thumbnail(request, context)
        return await self._rendered.answer(request, context)

    async def uri(self, request: Request, context: AccessContext) -> Response:
        """GET /wado."""
        return await self._uri.answer(request, context)
