"""GET /rejections: what is rejected, by whom, when and why, as far as the caller sees the studies."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from dicomweb.database import Database
from dicomweb.rejection.codes import SCHEME, RejectionCode
from dicomweb.rejection.part import require_right
from dicomweb.visibility import Visibility
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InvalidRequestError

_LARGEST_PAGE = 200
_PARAMETERS = frozenset(("limit", "offset", "StudyInstanceUID"))
_LIST = """SELECT j.id, j.study_instance_uid, j.code, j.reason, j.rejected_by, j.rejected_at, j.instances,
        count(*)::integer AS still, bool_or(r.deletion IS NOT NULL) AS deleting,
        count(DISTINCT r.series_instance_uid)::integer AS series,
        s.instance_count, s.study_date, s.description, s.patient_id, s.attributes->'00100010' AS name
    FROM dicomweb.rejection j
    JOIN dicomweb.rejected_instance r ON r.rejection = j.id AND NOT r.is_note AND r.deleted_at IS NULL
    JOIN dicomweb.study s ON s.study_instance_uid = r.study_instance_uid
    JOIN dicomweb.series e ON (e.study_instance_uid, e.series_instance_uid)
        = (r.study_instance_uid, r.series_instance_uid)
    WHERE ($1::text IS NULL OR j.study_instance_uid = $1) AND {visible}
    GROUP BY j.id, s.study_instance_uid ORDER BY j.rejected_at DESC, j.id DESC LIMIT $2 OFFSET $3"""


async def rejections(
    request: Request, context: AccessContext, database: Database, visibility: Visibility
) -> list[dict[str, Any]]:
    """Return the rejections in force, the latest first.

    Raises
    ------
    ForbiddenError
        The token may not change images.
    InvalidRequestError
        A parameter that is unknown or no number.
    """
    require_right(context, "u")
    if not set(request.query_params) <= _PARAMETERS:
        raise InvalidRequestError(f"Parameters are {', '.join(sorted(_PARAMETERS))}", issue_code="not-supported")
    limit, offset = (_number(request, name, default) for name, default in (("limit", 50), ("offset", 0)))
    visible = await visibility.visible(context, "u", start=4)
    query = _LIST.format(visible=visible.sql)
    values = (request.query_params.get("StudyInstanceUID"), min(limit, _LARGEST_PAGE), offset, *visible.values)
    async with database.connection() as connection:
        return [_shown(row) for row in await connection.fetch(query, *values)]


def _shown(row: Any) -> dict[str, Any]:
    code = RejectionCode(row["code"])
    names = ((row["name"] or {}).get("Value") or [{}])[0]
    return {
        "id": row["id"],
        "studyInstanceUID": row["study_instance_uid"],
        "code": {"value": str(code), "scheme": SCHEME, "meaning": code.meaning},
        "reason": row["reason"],
        "rejectedBy": row["rejected_by"],
        "rejectedAt": row["rejected_at"].isoformat(timespec="seconds"),
        "instances": row["still"],
        "series": row["series"],
        "wholeStudy": row["instance_count"] == 0,
        "state": "deleting" if row["deleting"] else "rejected",
        "patientID": row["patient_id"] or "",
        "patientName": next((str(text) for text in (names or {}).values() if text), ""),
        "studyDate": row["study_date"] or "",
        "studyDescription": row["description"] or "",
    }


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidRequestError("A whole number is expected", expression=[name])
    return int(text)
