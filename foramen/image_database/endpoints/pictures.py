"""Thumbnails of studies and series, rendered by the gateway for this person."""

from __future__ import annotations

from starlette.responses import Response

from foramen.identity.pages import SECURITY_HEADERS
from foramen.image_database.page import Call
from foramen.image_database.record import record_of
from foramen.kernel.errors import InteropError, UpstreamError

_JPEG = "image/jpeg"
_SIDE = 192


async def study_thumbnail(call: Call) -> Response:
    """Return the picture of a study."""
    return await _thumbnail(call, f"/studies/{call.part('study')}")


async def series_thumbnail(call: Call) -> Response:
    """Return the picture of a series."""
    return await _thumbnail(call, f"/studies/{call.part('study')}/series/{call.part('series')}")


async def _thumbnail(call: Call, path: str) -> Response:
    """Pass a thumbnail on; what cannot be shown is an empty 404, whatever the reason: the page shows a frame."""
    try:
        async with record_of(call) as record:
            answer = await record.dicom(f"{path}/thumbnail", accept=_JPEG, params=[("viewport", f"{_SIDE},{_SIDE}")])
    except InteropError as error:
        status = 503 if isinstance(error, UpstreamError) else 404
        return Response(status_code=status, headers=SECURITY_HEADERS)
    if answer.headers.get("content-type", "").partition(";")[0] != _JPEG:
        return Response(status_code=404, headers=SECURITY_HEADERS)
    return Response(answer.content, media_type=_JPEG, headers=SECURITY_HEADERS)
