"""WADO-URI: one object named by query parameters, with the same tokens, access and audit as WADO-RS.

DICOM PS3.18 §9 (URI service), Tables 9.4.1-1 and 9.5.1-1.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from dicomweb.media_types import MediaRange, Offer, ranges
from dicomweb.retrieve import answers
from dicomweb.retrieve.frames import frame_numbers
from dicomweb.retrieve.instances import Instances
from dicomweb.retrieve.rendered import PICTURES, Rendered
from dicomweb.retrieve.rendering_parameters import FUNCTIONS, Rendering, number, rendering_of
from dicomweb.retrieve.resources import DICOM, Resources
from dicomweb.retrieve.transfer_syntaxes import EXPLICIT_LITTLE, INSTANCE_TARGETS, VIDEO_MEDIA_TYPES
from dicomweb.study_index import IndexedInstance
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InvalidRequestError, NotAcceptableError

NAMES = {"studyUID": "study", "seriesUID": "series", "objectUID": "instance"}
_PARAMETERS = frozenset(
    (
        *("requestType", *NAMES, "contentType", "charset", "anonymize", "annotation", "rows", "columns", "region"),
        *("windowCenter", "windowWidth", "frameNumber", "imageQuality", "presentationUID", "presentationSeriesUID"),
        *("transferSyntax", "accept"),
    )
)


def name_object(request: Request) -> None:
    """Take the UIDs of the query as if they stood in the path: checks and audit see them as those of WADO-RS.

    Raises
    ------
    InvalidRequestError
        One is missing, or it is no WADO request (PS3.18 §9.4.1).
    """
    query = request.query_params
    if query.get("requestType") != "WADO":
        raise InvalidRequestError("requestType=WADO is required", issue_code="required")
    for parameter, name in NAMES.items():
        if len(query.getlist(parameter)) != 1:
            raise InvalidRequestError(f"{parameter} is required once", issue_code="required")
        request.path_params[name] = query[parameter]


class WadoUri:
    """GET /wado."""

    def __init__(self, resources: Resources, instances: Instances, rendered: Rendered) -> None:
        self._in, self._instances, self._rendered = resources, instances, rendered

    async def answer(self, request: Request, context: AccessContext) -> Response:
        """Answer with one object, as DICOM or as a picture; the UIDs are checked already."""
        query, parameters = request.query_params, request.path_params
        instance = (await self._in.index.instances(context, *(parameters[name] for name in NAMES.values())))[0]
        unknown = sorted(set(query) - _PARAMETERS)
        if unknown:
            raise InvalidRequestError("A parameter is not one of PS3.18 §9.4", issue_code="not-supported")
        if query.get("anonymize"):
            raise InvalidRequestError("anonymize is not offered here", issue_code="not-supported")
        media_type = _media_type(request, instance)
        if media_type == DICOM:
            return await self._dicom(request, instance)
        if not instance.frames:
            return await self._rendered.document(request, instance)
        numbers = frame_numbers(query.get("frameNumber", "1"), instance.frames)
        if len(numbers) != 1:
            raise InvalidRequestError("frameNumber must be one number", issue_code="value")
        if media_type == "image/gif" and "frameNumber" not in query:
            numbers = list(range(1, instance.frames + 1))
        rendering = rendering_of(_as_rs(query), media_type)
        state = await self._state(context, query, parameters["study"])
        return await self._rendered.picture(request, instance, numbers, _with_region(rendering, query), state)

    async def _dicom(self, request: Request, instance: IndexedInstance) -> Response:
        syntax = request.query_params.get("transferSyntax", EXPLICIT_LITTLE)
        if syntax not in (*INSTANCE_TARGETS, instance.transfer_syntax_uid):
            raise NotAcceptableError(f"Available: {', '.join((*INSTANCE_TARGETS, instance.transfer_syntax_uid))}")
        tag = answers.etag_of("instances", DICOM, syntax, instance.orthanc_id)
        known = answers.not_modified(request, tag)
        return known or await self._instances.one(request, instance, syntax, tag)

    async def _state(self, context: AccessContext, query: Mapping[str, str], study: str) -> IndexedInstance | None:
        """Presentation state named by the query, of the same study and under the same access (PS3.18 §9.4.2)."""
        uids = query.get("presentationSeriesUID"), query.get("presentationUID")
        if uids == (None, None):
            return None
        if None in uids:
            raise InvalidRequestError(
                "presentationUID and presentationSeriesUID belong together", issue_code="required"
            )
        return (await self._in.index.instances(context, study, *uids))[0]


def object_offers(frames: int, *, video: bool = False) -> list[Offer]:
    """Forms of one object, the default first (PS3.18 §9.5.1)."""
    if video:
        return [Offer(DICOM)]
    if not frames:
        return [Offer("text/html"), Offer("application/pdf"), Offer(DICOM)]
    return [PICTURES[0], Offer(DICOM), *PICTURES[1:]] if frames == 1 else [Offer(DICOM), *PICTURES]


def _media_type(request: Request, instance: IndexedInstance) -> str:
    """Media type: the first of `contentType` that can be had, else by what the object is (PS3.18 §9.5.1)."""
    offered = object_offers(instance.frames, video=instance.transfer_syntax_uid in VIDEO_MEDIA_TYPES)
    wanted = request.query_params.get("contentType")
    named = [MediaRange(part.partition(";")[0].strip().lower(), False, None, 1.0) for part in (wanted or "").split(",")]
    if not wanted:
        named = [item for item in ranges(request) if item.quality > 0 and not item.multipart]
    for item in named:
        for offer in offered:
            if item.admits(offer.media_type):
                return offer.media_type
    raise NotAcceptableError(f"Available: {', '.join(map(str, offered))}")


def _as_rs(query: Mapping[str, str]) -> dict[str, str]:
    """Parameters of §9.4 under the names of §8.3.5."""
    found = {"quality": query["imageQuality"]} if "imageQuality" in query else {}
    if "annotation" in query:
        found["annotation"] = query["annotation"]
    centre, width = query.get("windowCenter"), query.get("windowWidth")
    if (centre is None) != (width is None):
        raise InvalidRequestError("windowCenter and windowWidth belong together", issue_code="required")
    if centre is not None:
        found["window"] = f"{centre},{width},{next(iter(FUNCTIONS))}"
    if "rows" in query or "columns" in query:
        found["viewport"] = f"{query.get('columns', '8192')},{query.get('rows', '8192')}"
    return found


def _with_region(rendering: Rendering, query: Mapping[str, str]) -> Rendering:
    """`region=left,top,right,bottom`, each 0–1 of the picture (PS3.18 §9.4.2)."""
    if "region" not in query:
        return rendering
    try:
        left, top, right, bottom = (number(part) for part in query["region"].split(","))
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ValueError("region")
    except ValueError as exc:
        raise InvalidRequestError("region=left,top,right,bottom must lie in 0 to 1", issue_code="value") from exc
    values = rendering.plain() | {"region": (left, top, right - left, bottom - top), "relative_region": True}
    return Rendering.of(values)
