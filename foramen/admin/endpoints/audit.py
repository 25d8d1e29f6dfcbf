"""`/apps/admin/audit`: search of the audit trail with the administrator's own rights, and its export.

https://hl7.org/fhir/R4/auditevent.html#search; the reading of it is audited too.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse

from foramen.admin.layout import render, told
from foramen.admin.page import Call
from foramen.identity.audit_line import AuditLine, audit_line, kinds_of
from foramen.identity.audit_outbox import CLIENT_ID as DELIVERY
from foramen.identity.bootstrap import SERVICES
from foramen.identity.endpoints.record_reading import fhir_of
from foramen.identity.pages import SECURITY_HEADERS
from foramen.kernel.errors import InvalidRequestError
from foramen.kernel.fhir_client import next_cursor

PAGE_SIZE = 50
MOST_EXPORTED = 10_000
_EXPORT_PAGE = 500
PEOPLE = "people"
"""Word of the filter that leaves out what our own services do all day."""
OUTCOMES = ("0", "4", "8", "12")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_PARAMETERS = {
    "account": "altid",
    "app": "agent-name",
    "patient": "patient",
    "what": "subtype",
    "outcome": "outcome",
    "policy": "policy",
}
"""Field of the page → search parameter of AuditEvent."""
_COLUMNS = AuditLine.__dataclass_fields__


async def audit_page(call: Call) -> Response:
    """Search the audit trail, newest first."""
    try:
        asked = _search(call.query)
    except InvalidRequestError as error:
        return _page(call, {}, None, status=400, problem=told(call, error))
    cursor = call.query.get("after", "")
    follow = [("_cursor", cursor)] if cursor else []
    async with fhir_of(call.env, call.account, ("AuditEvent",)) as fhir:
        bundle = await fhir.page("AuditEvent", [*asked, ("_count", str(PAGE_SIZE)), *follow])
    return _page(call, bundle, next_cursor(bundle))


async def export(call: Call) -> Response:
    """Send what the search finds as a file, at most `MOST_EXPORTED` events: NDJSON of AuditEvents, or CSV of lines."""
    asked = _search(call.query)
    kind = call.query.get("format", "csv")
    if kind not in ("csv", "ndjson"):
        raise InvalidRequestError("An export is csv or ndjson")
    async with fhir_of(call.env, call.account, ("AuditEvent",)) as fhir:  # What cannot be read is no empty file.
        first = await fhir.page("AuditEvent", [*asked, ("_count", str(_EXPORT_PAGE))])
    write = _csv if kind == "csv" else _ndjson
    name = f"audit-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{kind}"
    headers = {**SECURITY_HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    media = "text/csv; charset=utf-8" if kind == "csv" else "application/fhir+ndjson"
    return StreamingResponse(write(_events(call, asked, first)), headers=headers, media_type=media)


def _page(
    call: Call, bundle: dict[str, Any], following: str | None, *, status: int = 200, problem: str = ""
) -> Response:
    return render(
        call,
        "audit.html",
        status=status,
        problem=problem,
        lines=[
            (audit_line(entry["resource"]), kinds_of(entry["resource"]))
            for entry in bundle.get("entry", [])
            if "resource" in entry
        ],
        following=following,
        outcomes=OUTCOMES,
        people=PEOPLE,
        most=MOST_EXPORTED,
    )


def _search(query: dict[str, str]) -> list[tuple[str, str]]:
    """Return the search parameters of the fields.

    Raises
    ------
    InvalidRequestError
        A day is none, or an outcome, or whose events are asked for.
    """
    asked = [("_sort", "-date")]
    for name, prefix in (("since", "ge"), ("until", "le")):
        day = query.get(name, "").strip()
        if day and not _DAY.fullmatch(day):
            raise InvalidRequestError("A day is written as 2026-01-31")
        asked += [("date", f"{prefix}{day}")] if day else []
    if query.get("by", "") not in ("", PEOPLE):
        raise InvalidRequestError("Events are those of people, or all")
    asked += [("altid:not", ",".join((*SERVICES, DELIVERY)))] if query.get("by") else []
    if query.get("outcome", "") not in ("", *OUTCOMES):
        raise InvalidRequestError("An outcome is 0, 4, 8 or 12")
    for name, parameter in _PARAMETERS.items():
        value = query.get(name, "").strip()
        if value:
            asked.append((parameter, _escaped(value)))
    return asked


def _escaped(value: str) -> str:
    """Keep the separators of search values out of effect (https://hl7.org/fhir/R4/search.html#escaping)."""
    return re.sub(r"([\\,$|])", r"\\\1", value)


async def _events(
    call: Call, asked: list[tuple[str, str]], bundle: dict[str, Any]
) -> AsyncIterator[list[dict[str, Any]]]:
    """Give the events page by page; the rights are asked for each page anew."""
    given = 0
    while True:
        events = [entry["resource"] for entry in bundle.get("entry", []) if "resource" in entry]
        yield events[: MOST_EXPORTED - given]
        given += len(events)
        cursor = next_cursor(bundle)
        if cursor is None or given >= MOST_EXPORTED:
            return
        async with fhir_of(call.env, call.account, ("AuditEvent",)) as fhir:
            bundle = await fhir.page("AuditEvent", [*asked, ("_count", str(_EXPORT_PAGE)), ("_cursor", cursor)])


async def _ndjson(pages: AsyncIterator[list[dict[str, Any]]]) -> AsyncIterator[bytes]:
    async for events in pages:
        yield b"".join(orjson.dumps(event) + b"\n" for event in events)


async def _csv(pages: AsyncIterator[list[dict[str, Any]]]) -> AsyncIterator[bytes]:
    yield b"\xef\xbb\xbf" + _rows([list(_COLUMNS)])  # The mark lets spreadsheets read Chinese.
    async for events in pages:
        lines = [audit_line(event) for event in events]
        yield _rows([[_cell(getattr(line, name)) for name in _COLUMNS] for line in lines])


def _rows(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: object) -> str:
    """Keep a spreadsheet from taking a value for a formula (OWASP CSV Injection)."""
    text = str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
