"""QIDO-RS: search for studies, series and instances on our own index, access applied before paging.

DICOM PS3.18 §10.6 (Search transaction), §8.3.4 (query parameters), §8.7.4 (media types); PS3.4 §C.2.2.2 (matching).
"""

from __future__ import annotations

from typing import Any

import asyncpg
import orjson
from starlette.requests import Request
from starlette.responses import Response

from dicomweb import native_model
from dicomweb.database import Database
from dicomweb.index.levels import Level
from dicomweb.media_types import Offer, negotiate
from dicomweb.multipart import new_boundary
from dicomweb.search.answer import Answer
from dicomweb.search.labels import Labels, with_labels
from dicomweb.search.matching import Matcher
from dicomweb.search.parameters import SearchRequest, parse
from dicomweb.visibility import Visibility
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InvalidRequestError, PayloadTooLargeError
from foramen.kernel.settings import Settings

OFFERS = (
    Offer("application/dicom+json"),
    Offer("application/json"),
    Offer(native_model.MEDIA_TYPE, multipart=True),
)
_LEVELS: dict[str, Level] = {"studies": "study", "series": "series", "instances": "instance"}
_PREFER_TOTAL = "count=exact"


class Qido:
    """The Search transaction."""

    def __init__(
        self, settings: Settings, database: Database, visibility: Visibility, labels: Labels | None = None
    ) -> None:
        self._settings, self._database, self._visibility = settings, database, visibility
        self._labels = labels

    async def search(self, request: Request, context: AccessContext) -> Response:
        """GET /studies, /series, /instances and their nested forms."""
        offer = negotiate(request, OFFERS)
        level = _LEVELS[request.url.path.rstrip("/").rsplit("/", 1)[-1]]
        visible = await self._visibility.visible(context, "s")
        asked = parse(level, request.query_params.multi_items(), request.path_params)
        labels, labelled = await self._labels.asked(asked) if self._labels is not None else (False, None)
        matcher = Matcher(asked, visible)
        where = matcher.where()
        if labelled is not None:
            where = f"({where}) AND s.study_instance_uid = ANY({matcher.bind(list(labelled))}::text[])"
        as_text = not (offer.multipart or labels)
        answer = Answer(asked, visible, self._settings.dicom_web_base, as_text=as_text)
        exact = _PREFER_TOTAL in request.headers.get("prefer", "").replace(" ", "").lower().split(",")
        rows, total = await self._page(answer, asked, where, matcher, exact=exact)
        more, rows = len(rows) > asked.limit, rows[: asked.limit]
        headers = self._headers(more, total)
        if not as_text:
            datasets = [answer.dataset(row) for row in rows]
        if labels and self._labels is not None:
            known = labelled if labelled is not None else await self._labels.of(row["study_uid"] for row in rows)
            datasets = [
                with_labels(item, known.get(row["study_uid"], ())) for item, row in zip(datasets, rows, strict=True)
            ]
        if offer.multipart:
            if not datasets:  # A multipart body has at least one part (RFC 2046 §5.1.1).
                return Response(status_code=204, headers=headers)
            boundary = new_boundary()
            headers["Content-Type"] = f'multipart/related; type="{native_model.MEDIA_TYPE}"; boundary={boundary}'
            return Response(b"".join(native_model.xml_parts(datasets, boundary)), headers=headers)
        content = orjson.dumps(datasets, option=orjson.OPT_SORT_KEYS) if labels else answer.json(rows)
        return Response(content, media_type=offer.media_type, headers=headers)

    async def _page(
        self, answer: Answer, asked: SearchRequest, where: str, matcher: Matcher, *, exact: bool
    ) -> tuple[list[Any], int | None]:
        """Return one row more than the page holds, and the total where the page tells it or it was asked for."""
        matching = list(matcher.values)
        statement = answer.select(where, matcher.bind(asked.limit + 1), matcher.bind(asked.offset))
        longest_s = self._settings.qido_longest_s
        async with self._database.connection() as connection:
            try:
                rows: list[Any] = await connection.fetch(statement, *matcher.values, timeout=longest_s)
                if len(rows) <= asked.limit and (rows or not asked.offset):
                    return rows, asked.offset + len(rows)
                if not exact:
                    return rows, None
                return rows, await connection.fetchval(answer.total(where), *matching, timeout=longest_s)
            except asyncpg.DataError as exc:
                raise InvalidRequestError("A value cannot be matched on") from exc
            except TimeoutError as exc:  # Here, as outside it would count as a database that does not answer.
                raise PayloadTooLargeError("The search is too broad; narrow it", issue_code="too-costly") from exc

    def _headers(self, more: bool, total: int | None) -> dict[str, str]:
        """Return what the answer says of its page: Warning 299 (§8.3.4.4), the total, and that `Accept` mattered."""
        headers = {"Vary": "Accept, Prefer", "Cache-Control": "no-cache"}
        if total is not None:
            headers["X-Total-Count"] = str(total)
        if more:
            text = "There are additional results that can be requested"
            headers["Warning"] = f'299 {self._settings.dicom_web_base} "{text}"'
        return headers
