"""HTTP of rejections: reject, restore, delete, and the list; each below `DicomWebService`, which audits every call.

The paths are those of dcm4chee (``POST …/reject/113001^DCM``) and of Orthanc, dcm4chee and Google (``DELETE …``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dicomweb.rejection.codes import REVOKE, rejection_code
from dicomweb.rejection.listing import rejections
from dicomweb.rejection.rows import Target
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InvalidRequestError
from foramen.kernel.http_edge import read_body

if TYPE_CHECKING:
    from dicomweb.database import Database
    from dicomweb.intake import Intake
    from dicomweb.rejection.part import Rejections
    from dicomweb.visibility import Visibility

_BODY_BYTES = 4096
_LONGEST_REASON = 500


class RejectionHandlers:
    """Handlers of `DicomWebService`."""

    intake: Intake
    _rejections: Rejections
    _database: Database
    _seen: Visibility

    async def _reject(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        """POST …/reject/{code}: with a body ``{"reason": "…"}`` if wanted."""
        if request.path_params["code"] == REVOKE:
            return await self._restore(request, context, trace_id)
        code, reason = rejection_code(request.path_params["code"]), await _reason(request)
        done = await self._rejections.reject(context, _target(request), code, reason, trace_id)
        self.intake.wake()
        return _json({"count": done.count, "rejection": done.id, "rejectionNote": done.note_uid})

    async def _restore(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        """POST …/restore."""
        count = await self._rejections.restore(context, _target(request), trace_id)
        self.intake.wake()
        return _json({"count": count})

    async def _delete(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        """DELETE: 204 when everything is gone, 202 when it will be as soon as the archive answers."""
        given = request.query_params.get("reject")
        code = None if given is None else rejection_code(given)
        if set(request.query_params) - {"reject"}:
            raise InvalidRequestError("The only parameter is reject", issue_code="not-supported")
        done = await self._rejections.delete(context, _target(request), code, trace_id)
        self.intake.wake()
        return Response(status_code=204 if done else 202)

    async def _list_rejections(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        """GET /rejections."""
        return _json(await rejections(request, context, self._database, self._seen))


def _target(request: Request) -> Target:
    path = request.path_params
    return Target(path["study"], path.get("series"), path.get("instance"))


async def _reason(request: Request) -> str:
    body = await read_body(request, _BODY_BYTES)
    if not body.strip():
        return ""
    try:
        content = orjson.loads(body)
        reason = content.get("reason", "")
    except (orjson.JSONDecodeError, AttributeError) as exc:
        raise InvalidRequestError("The body is JSON with a reason, or empty") from exc
    if not isinstance(reason, str) or len(reason) > _LONGEST_REASON or "\0" in reason:
        raise InvalidRequestError(f"A reason is text of at most {_LONGEST_REASON} characters", expression=["reason"])
    return reason.strip()


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json", headers={"Cache-Control": "no-store"})
