"""The handlers of the gateway's table of calls that belong to the Worklist Service (DICOM PS3.18 §11)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from dicomweb.workitems.part import WorklistPart
from foramen.kernel.access_context import AccessContext


class WorklistHandlers:
    """Mixed into `DicomWebService`, which builds `_worklist` when it starts."""

    _worklist: WorklistPart

    async def _search_workitems(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        return await self._worklist.answer("search", request, context, trace_id)

    async def _create_workitem(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        return await self._worklist.answer("create", request, context, trace_id)

    async def _retrieve_workitem(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        return await self._worklist.answer("retrieve", request, context, trace_id)

    async def _update_workitem(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        return await self._worklist.answer("update", request, context, trace_id)

    async def _change_workitem_state(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        return await self._worklist.answer("change_state", request, context, trace_id)

    async def _request_cancellation(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        return await self._worklist.answer("request_cancellation", request, context, trace_id)

    async def _subscribe(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        return await self._worklist.answer("subscribe", request, context, trace_id)

    async def _unsubscribe(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        return await self._worklist.answer("unsubscribe", request, context, trace_id)

    async def _suspend(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        return await self._worklist.answer("suspend", request, context, trace_id)
