"""Stage 1, receive: STOW-RS. Answers only when Orthanc has acknowledged and the index knows every accepted instance.

DICOM PS3.18 §10.5 (Store transaction), Annex I (Store Instances Response Module).
"""

from __future__ import annotations

import asyncio

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dicomweb.archive import Archive
from dicomweb.database import Database
from dicomweb.instance_check import RejectedInstanceError
from dicomweb.institutions import bounds_of
from dicomweb.media_types import accepted
from dicomweb.multipart import Part, Spool
from dicomweb.rejection.doors import Door
from dicomweb.rejection.part import Rejections
from dicomweb.store.batches import Batches
from dicomweb.store.delivery import Delivery
from dicomweb.store.early import EarlyLook
from dicomweb.store.known import Known
from dicomweb.store.metadata import assemble, models_of
from dicomweb.store.native_xml import to_xml
from dicomweb.store.receive import DICOM, DICOM_JSON, DICOM_XML, NoSpaceError, receive
from dicomweb.store.report import response_module
from dicomweb.study_index import StudyIndex
from foramen.kernel.access_context import AccessContext, Reach
from foramen.kernel.errors import ForbiddenError, InvalidRequestError, NotAcceptableError
from foramen.kernel.settings import Settings

ANSWERS = {DICOM_JSON: (DICOM_JSON, "application/json"), DICOM_XML: (DICOM_XML, "text/xml")}
"""Media type of the answer → the names it can be asked for by."""


class Stow:
    """The Store transaction."""

    def __init__(
        self, settings: Settings, archive: Archive, index: StudyIndex, database: Database, rejections: Rejections
    ) -> None:
        self._settings, self._parsing = settings, asyncio.Semaphore(2)
        due_in_s = float(settings.stable_study_s)
        self._batches = Batches(archive, index, Known(database), Door(rejections), self._parsing, due_in_s)

    async def store(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        """POST /studies and POST /studies/{study}."""
        if context.reach("ImagingStudy", "c") is not Reach.EVERYTHING:
            raise ForbiddenError("A patient scope cannot store images")
        if bounds_of(context, self._settings.institutions) is not None:
            # Whose they are is known after they were stored; a refusal for some would tell of patients elsewhere.
            raise ForbiddenError("Where institutions are separate, images are stored by services")
        answer = _answer_type(request)
        spool, early = Spool(), EarlyLook(self._parsing)
        try:
            try:
                kind, parts = await receive(request, spool, self._settings, early.whole)
            finally:
                found = await early.end()
            if not parts:
                raise InvalidRequestError("The body holds no instance")
            deliveries = (
                [Delivery(part, context, early=found.get(part.start)) for part in parts]
                if kind == DICOM
                else await self._assembled(parts, kind, spool, context)
            )
            report = await self._batches.store(deliveries, request.path_params.get("study"), trace_id)
        finally:
            spool.close()
        module = response_module(report, self._settings.dicom_web_base)
        body = to_xml(module) if answer == DICOM_XML else orjson.dumps(module)
        return Response(body, status_code=report.status, media_type=answer)

    async def _assembled(self, parts: list[Part], kind: str, spool: Spool, context: AccessContext) -> list[Delivery]:
        """Files made of metadata and bulk data, appended to the spool."""
        models, bulk = models_of(parts, kind)
        deliveries = []
        for model in models:
            try:
                async with self._parsing:
                    content, remark = await asyncio.to_thread(assemble, model, bulk, self._settings.dicom_web_base)
            except RejectedInstanceError as error:
                deliveries.append(Delivery(parts[0], context, fault=error))
                continue
            deliveries.append(Delivery(Part(spool, spool.size, len(content)), context, remark=remark))
            try:
                spool.write(content)
            except OSError as exc:
                raise NoSpaceError("There is no room for the instances") from exc
        return deliveries


def _answer_type(request: Request) -> str:
    """Media type of the answer; decided before anything is stored.

    Raises
    ------
    NotAcceptableError
        The client takes neither JSON nor XML.
    """
    for item in accepted(request):
        for media_type, names in ANSWERS.items():
            if any(item.admits(name) for name in names):
                return media_type
    raise NotAcceptableError(f"Available: {', '.join(ANSWERS)}")
