"""QIDO-RS: search for studies, series and instances on our own index, access applied before paging.

DICOM PS3.18 §10.6 (Search transaction), §8.3.4 (query parameters); PS3.4 §C.2.2.2 (matching).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from dicomweb.database import Database
from dicomweb.instance_header import INSTANCE_KEYWORDS, SERIES_KEYWORDS, STUDY_KEYWORDS, tag_of
from dicomweb.institutions import Bounds, Institutions
from dicomweb.media_types import require
from dicomweb.study_index import patient_limit, shows_own_output
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InvalidRequestError
from foramen.kernel.settings import Settings

LARGEST_PAGE = 1000
_DATES = frozenset(
    tag_of(name)
    for name in ("StudyDate", "SeriesDate", "ContentDate", "PatientBirthDate", "PerformedProcedureStepStartDate")
)
_TIMES = frozenset(
    tag_of(name) for name in ("StudyTime", "SeriesTime", "ContentTime", "PerformedProcedureStepStartTime")
)
_MODALITIES = tag_of("ModalitiesInStudy")
_LEVELS = {
    "study": frozenset(tag_of(name) for name in STUDY_KEYWORDS),
    "series": frozenset(tag_of(name) for name in SERIES_KEYWORDS),
    "instance": frozenset(tag_of(name) for name in INSTANCE_KEYWORDS),
}
_ALIAS = {"study": "s", "series": "e", "instance": "i"}
_FUZZY = '299 foramen "The fuzzymatching parameter is not supported. Only literal matching has been performed."'

_STUDY_SQL = """
    SELECT s.attributes AS study, NULL::jsonb AS series, NULL::jsonb AS instance, s.study_instance_uid AS study_uid,
           NULL AS series_uid, NULL AS instance_uid
    FROM dicomweb.study s WHERE {where} ORDER BY s.keys->'00080020' DESC NULLS LAST, s.study_instance_uid LIMIT {limit}
"""
_SERIES_SQL = """
    SELECT s.attributes AS study, e.attributes AS series, NULL::jsonb AS instance, s.study_instance_uid AS study_uid,
           e.series_instance_uid AS series_uid, NULL AS instance_uid
    FROM dicomweb.series e JOIN dicomweb.study s USING (study_instance_uid)
    WHERE {where} ORDER BY e.study_instance_uid, e.series_instance_uid LIMIT {limit}
"""
_INSTANCE_SQL = """
    SELECT s.attributes AS study, e.attributes AS series, i.attributes AS instance, i.study_instance_uid AS study_uid,
           i.series_instance_uid AS series_uid, i.sop_instance_uid AS instance_uid
    FROM dicomweb.instance i JOIN dicomweb.series e USING (study_instance_uid, series_instance_uid)
    JOIN dicomweb.study s USING (study_instance_uid)
    WHERE {where} ORDER BY i.study_instance_uid, i.series_instance_uid, i.instance_number NULLS LAST, i.sop_instance_uid
    LIMIT {limit}
"""
_OF_MODALITY = """EXISTS (SELECT 1 FROM dicomweb.series m WHERE m.study_instance_uid = s.study_instance_uid
    AND m.keys->'00080060'->>0 = ANY({}::text[]))"""
_OF_SHOWN_MODALITY = _OF_MODALITY.removesuffix(")") + " AND NOT m.own_output)"
_WITHOUT_OWN = """EXISTS (SELECT 1 FROM dicomweb.series o
    WHERE o.study_instance_uid = s.study_instance_uid AND NOT o.own_output)"""
_SQL = {"study": _STUDY_SQL, "series": _SERIES_SQL, "instance": _INSTANCE_SQL}
_STUDY_COUNTS = """
    SELECT e.study_instance_uid, count(DISTINCT e.series_instance_uid) AS series,
           count(i.sop_instance_uid) AS instances, array_agg(DISTINCT e.keys->'00080060'->>0) AS modalities
    FROM dicomweb.series e JOIN dicomweb.instance i USING (study_instance_uid, series_instance_uid)
    WHERE e.study_instance_uid = ANY($1::text[]) AND ($2 OR NOT e.own_output) GROUP BY 1
"""
_SERIES_COUNTS = """
    SELECT series_instance_uid, count(*) AS instances FROM dicomweb.instance
    WHERE study_instance_uid = ANY($1::text[]) GROUP BY 1
"""


@dataclass(slots=True)
class Query:
    """A parsed query: SQL conditions with their values, and the page."""

    conditions: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    limit: int = LARGEST_PAGE
    offset: int = 0
    warnings: list[str] = field(default_factory=list)
    all_series: bool = True

    def add(self, template: str, value: Any) -> None:
        """Add one condition; `{}` in it becomes the placeholder of the value."""
        self.values.append(value)
        self.conditions.append(template.format(f"${len(self.values)}"))

    def bound(self, bounds: Bounds) -> None:
        """Leave out the studies of other institutions."""
        self.values += [bounds.organization, list(bounds.patients)]
        places = len(self.values)
        self.conditions.append(f"(s.institution = ${places - 1}::text OR s.patient_ref = ANY(${places}::text[]))")


class Qido:
    """The Search transaction."""

    def __init__(self, settings: Settings, database: Database, institutions: Institutions) -> None:
        self._settings, self._database, self._institutions = settings, database, institutions

    async def search(self, request: Request, context: AccessContext) -> Response:
        """GET /studies, /series, /instances and their nested forms."""
        media_type = require(request, ("application/dicom+json", "application/json"))
        level = _level_of(request.url.path)
        patient, all_series = patient_limit(context, "s"), shows_own_output(context)
        query = parse_query(level, request.query_params, request.path_params, all_series=all_series)
        if patient is not None:
            query.add("s.patient_ref = {}", patient)
        if (bounds := await self._institutions.bounds(context)) is not None:
            query.bound(bounds)
        where = " AND ".join(query.conditions) or "true"
        query.values += [query.limit + 1, query.offset]
        page = f"${len(query.values) - 1} OFFSET ${len(query.values)}"
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL[level].format(where=where, limit=page), *query.values)
            more, rows = len(rows) > query.limit, rows[: query.limit]
            studies = list({row["study_uid"] for row in rows})
            counts = {row[0]: row for row in await connection.fetch(_STUDY_COUNTS, studies, all_series)}
            sizes = dict(await connection.fetch(_SERIES_COUNTS, studies)) if level != "study" else {}
        found = [self._result(row, counts, sizes) for row in rows]
        warnings = list(query.warnings)
        if more:
            warnings.append('299 foramen "There are additional results that can be requested"')
        headers = {"Warning": ", ".join(warnings)} if warnings else {}
        return Response(orjson.dumps(found), media_type=media_type, headers=headers)

    def _result(self, row: Any, counts: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
        study_uid = row["study_uid"]
        path = f"{self._settings.dicom_web_base}/studies/{study_uid}"
        result: dict[str, Any] = dict(row["study"])
        if count := counts.get(study_uid):
            result[_MODALITIES] = {"vr": "CS", "Value": sorted(filter(None, count["modalities"]))}
            result["00201206"] = {"vr": "IS", "Value": [count["series"]]}
            result["00201208"] = {"vr": "IS", "Value": [count["instances"]]}
        if row["series"] is not None:
            path = f"{path}/series/{row['series_uid']}"
            result |= row["series"] | {"00201209": {"vr": "IS", "Value": [sizes.get(row["series_uid"], 0)]}}
        if row["instance"] is not None:
            path = f"{path}/instances/{row['instance_uid']}"
            result |= row["instance"]
        result["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}
        result["00080056"] = {"vr": "CS", "Value": ["ONLINE"]}
        result["00081190"] = {"vr": "UR", "Value": [path]}
        return dict(sorted(result.items()))


def _level_of(path: str) -> str:
    return {"studies": "study", "series": "series", "instances": "instance"}[path.rstrip("/").rsplit("/", 1)[-1]]


def parse_query(level: str, parameters: QueryParams, path: dict[str, str], *, all_series: bool = True) -> Query:
    """Turn query parameters into conditions.

    Parameters
    ----------
    all_series : whether the series that this installation made itself are found and counted

    Raises
    ------
    InvalidRequestError
        An attribute that is not matched on at this level (to ignore it would return too much), or a bad value.
    """
    query = Query(all_series=all_series)
    if not all_series:
        query.conditions.append(_WITHOUT_OWN if level == "study" else "NOT e.own_output")
    for name, keyword in (("study", "StudyInstanceUID"), ("series", "SeriesInstanceUID")):
        if name in path:
            _match(query, level, tag_of(keyword), path[name])
    for name, value in parameters.multi_items():
        if "\0" in value:
            raise InvalidRequestError(f"{name} holds a character that no attribute can hold")
        match name:
            case "limit":
                query.limit = min(_whole_number(name, value), LARGEST_PAGE)
            case "offset":
                query.offset = _whole_number(name, value)
            case "fuzzymatching":
                if value == "true":
                    query.warnings.append(_FUZZY)
            case "includefield":
                _check_fields(value)
            case "accept":
                pass
            case _:
                tag = _tag(name)
                if tag is None:
                    raise InvalidRequestError(f"Unknown attribute {name[:64]}", expression=[name[:64]])
                if value != "":
                    _match(query, level, tag, value)
    return query


def _whole_number(name: str, value: str) -> int:
    if not re.fullmatch(r"\d{1,9}", value):
        raise InvalidRequestError(f"{name} must be a whole number", expression=[name])
    return int(value)


def _tag(name: str) -> str | None:
    """Eight hexadecimal digits of an attribute named by keyword or tag."""
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        return name.upper() if keyword_for_tag(int(name, 16)) else None
    tag = tag_for_keyword(name)
    return None if tag is None else f"{tag:08X}"


def _check_fields(value: str) -> None:
    """Check the fields asked for; everything the index holds is returned anyway."""
    for part in value.split(","):
        if part != "all" and _tag(part) is None:
            raise InvalidRequestError(f"Unknown attribute {part[:64]}", expression=["includefield"])


def _match(query: Query, level: str, tag: str, value: str) -> None:
    if tag == _MODALITIES:
        wanted = value.replace("\\", ",").split(",")
        query.add(_OF_MODALITY if query.all_series else _OF_SHOWN_MODALITY, wanted)
        return
    order = ("study", "series", "instance")
    usable = order[: order.index(level) + 1]
    owner = next((name for name in usable if tag in _LEVELS[name]), None)
    if owner is None:
        text = keyword_for_tag(int(tag, 16))
        raise InvalidRequestError(f"{text} cannot be matched on at {level} level", expression=[text])
    column = {"0020000D": "s.study_instance_uid", "0020000E": "e.series_instance_uid", "00080018": "i.sop_instance_uid"}
    if tag in column:
        query.add(f"{column[tag]} = ANY({{}}::text[])", [part.strip() for part in re.split(r"[,\\]", value)])
        return
    # `tag` is eight hexadecimal digits out of our own lists; everything a client sent goes in as a parameter.
    some = f"EXISTS (SELECT 1 FROM jsonb_array_elements_text({_ALIAS[owner]}.keys->'{tag}') AS v WHERE v"  # noqa: S608
    if tag in _DATES or tag in _TIMES:
        low, high = _range(tag, value)
        query.add(some + " >= {})", low)
        query.add(some + " <= {})", high)
    elif "*" in value or "?" in value or _is_name(tag):
        escaped = re.sub(r"([\\%_])", r"\\\1", value).replace("*", "%").replace("?", "_")
        query.add(some + " ILIKE {})", escaped)
    else:
        query.add(some + " = {})", value)


def _is_name(tag: str) -> bool:
    """Person names match without regard to case (PS3.4 §C.2.2.2.1)."""
    return tag in (tag_of("PatientName"), tag_of("ReferringPhysicianName"))


def _range(tag: str, value: str) -> tuple[str, str]:
    """Bounds of a date or time range ("from-to", "from-", "-to", or one value)."""
    if not re.fullmatch(r"[\d.:]*-?[\d.:]*", value):
        raise InvalidRequestError("A date or time range is malformed", expression=[keyword_for_tag(int(tag, 16))])
    low, dash, high = value.replace(":", "").partition("-")
    high = high if dash else low
    # A bound given to the minute covers the whole minute, so the upper one is filled with nines.
    return low, (high + "9" * (16 - len(high)) if high else "9" * 16)
