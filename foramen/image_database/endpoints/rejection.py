"""Reject a study with a reason from a list, see what is rejected, and restore it. The gateway decides and audits.

IHE RAD TF-1 §30 (IOCM); dicomweb/rejection.
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from foramen.image_database.attributes import person_name
from foramen.image_database.endpoints.study import shown, uid_of
from foramen.image_database.layout import done, page_number, render
from foramen.image_database.page import Call
from foramen.image_database.record import record_of
from foramen.kernel.errors import ConflictError, InvalidRequestError

REASONS = ("113001", "113038", "113037", "113039")
"""Codes of scheme DCM, in the order of the list."""
LONGEST_NOTE = 500
_PAGE_SIZE = 50


async def rejected_page(call: Call) -> Response:
    """Show what is rejected."""
    return await _listed(call)


async def _listed(call: Call, *, status: int = 200, problem: str = "") -> Response:
    number = page_number(call)
    bounds = [("limit", str(_PAGE_SIZE + 1)), ("offset", str((number - 1) * _PAGE_SIZE))]
    async with record_of(call) as record:
        found = await record.rejections(bounds)
    return render(
        call,
        "rejected.html",
        status=status,
        problem=problem,
        lines=[_line(item) for item in found[:_PAGE_SIZE]],
        more=len(found) > _PAGE_SIZE,
        number=number,
    )


def _line(item: dict[str, Any]) -> dict[str, Any]:
    day, when = str(item["studyDate"]), str(item["rejectedAt"])
    return {
        **item,
        "day": f"{day[:4]}-{day[4:6]}-{day[6:8]}" if len(day) == 8 else "",
        "code": item["code"]["value"],
        "patientName": person_name(str(item["patientName"])),
        "when": when[:16].replace("T", " ") + " UTC",
    }


async def reject(call: Call) -> Response:
    """Reject the whole study."""
    study, code = uid_of(call, "study"), call.form.get("code", "")
    note = call.form.get("note", "").strip()
    try:
        if code not in REASONS:
            raise InvalidRequestError("Choose a reason")
        if len(note) > LONGEST_NOTE:
            raise InvalidRequestError(f"A note has at most {LONGEST_NOTE} characters")
        async with record_of(call) as record:
            await record.change(f"/studies/{study}/reject/{code}^DCM", {"reason": note})
    except (InvalidRequestError, ConflictError) as error:
        return await shown(call, status=error.status, problem=error.message)
    return done("/rejected", "rejected")


async def restore(call: Call) -> Response:
    """Take back what was rejected of a study."""
    study = uid_of(call, "study")
    try:
        async with record_of(call) as record:
            await record.change(f"/studies/{study}/restore", {})
    except ConflictError as error:
        return await _listed(call, status=error.status, problem=error.message)
    return done(f"/studies/{study}", "restored")
