"""GET /drift: what is out of line between archive, index and record now, for those who keep them in line.

It names studies of every institution, so it is for system administrators, and for tokens that may change Tasks
everywhere (`Task.u`) and that no institution bounds; a right on one's own patients is none here.
docs/how-to/reconcile_archive.md, ADR 0041
"""

from __future__ import annotations

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dicomweb.database import Database
from dicomweb.media_types import accepted
from dicomweb.reconciliation.report import FILES, report_data, report_page
from foramen.kernel.access_context import ADMINISTRATOR, AccessContext, Reach
from foramen.kernel.errors import ForbiddenError, InvalidRequestError, NotAcceptableError

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "Vary": "Accept, Accept-Language",
}


def require_keeper(context: AccessContext) -> None:
    """Refuse whoever does not keep archive, index and record of all institutions in line.

    Raises
    ------
    ForbiddenError
        No scope ``foramen/admin``, and none for all Tasks that reaches over the institutions.
    """
    if context.has_scope(ADMINISTRATOR):
        return
    if context.reach("Task", "u") is not Reach.EVERYTHING or context.is_bounded_by_institution:
        raise ForbiddenError("Only a scope for the whole archive grants this")


async def drift_page(request: Request, context: AccessContext, database: Database) -> Response:
    """Answer with the report: HTML in the language asked for, or JSON.

    Raises
    ------
    ForbiddenError
        See `require_keeper`; decided before anything is looked up.
    InvalidRequestError
        Another parameter than ``lang``, or a language there is not.
    NotAcceptableError
        Neither HTML nor JSON is accepted.
    """
    require_keeper(context)
    lang = _language(request)
    html = _is_html(request)
    async with database.connection() as connection:
        data = await report_data(connection)
    if html:
        page = report_page(lang, data, {name: f"?lang={name}" for name in FILES})
        return Response(page, headers=_HEADERS | {"Content-Language": lang}, media_type="text/html; charset=utf-8")
    return Response(orjson.dumps(data), headers=_HEADERS, media_type="application/json")


def _is_html(request: Request) -> bool:
    for item in accepted(request):
        if item.media_type in ("text/html", "text/*", "*/*"):
            return True
        if item.admits("application/json"):
            return False
    raise NotAcceptableError("Available: text/html, application/json")


def _language(request: Request) -> str:
    """Return zh-CN or en: the parameter, else the browser's first language that there is, else Chinese."""
    if set(request.query_params) - {"lang", "accept"}:
        raise InvalidRequestError("The only parameter is lang", issue_code="not-supported")
    given = request.query_params.get("lang")
    if given is not None:
        found = next((name for name in FILES if name.split("-")[0] == given.split("-")[0]), None)
        if found is None:
            raise InvalidRequestError("The languages are zh-CN and en", issue_code="value", expression=["lang"])
        return found
    for part in request.headers.get("accept-language", "").split(","):
        name = part.split(";")[0].strip().split("-")[0]
        found = next((one for one in FILES if one.split("-")[0] == name), None)
        if found is not None:
            return found
    return next(iter(FILES))
