"""`/apps/admin/institutions`: the institutions accounts belong to; adding and renaming them."""

from __future__ import annotations

from starlette.responses import Response

from foramen.admin.layout import done, render, told
from foramen.admin.page import MANAGE_INSTITUTIONS, Call
from foramen.identity.rights.institution_administration import (
    add_institution,
    counted_institutions,
    find_institution,
    rename_institution,
)
from foramen.identity.rights.institutions import Institution
from foramen.kernel.errors import ConflictError, InvalidRequestError


async def institutions_page(call: Call) -> Response:
    """List the institutions within reach, with the number of their accounts."""
    found = await call.run(counted_institutions)
    return render(call, "institutions.html", institutions=found, may_change=call.may(MANAGE_INSTITUTIONS))


async def new_institution_page(call: Call) -> Response:
    """Show the form of a new institution."""
    return render(call, "institution_form.html", institution=None)


async def new_institution(call: Call) -> Response:
    """Add an institution."""
    wanted = _wanted(call, call.form.get("id", ""))
    try:
        await call.run(lambda connection, administrator: add_institution(connection, administrator, wanted))
    except (InvalidRequestError, ConflictError) as error:
        problem = told(call, error)
        return render(call, "institution_form.html", status=error.status, problem=problem, institution=None)
    return done("/institutions", "institution_added")


async def rename_page(call: Call) -> Response:
    """Show the form that renames an institution."""
    return await _rename_form(call)


async def rename(call: Call) -> Response:
    """Rename an institution."""
    wanted = _wanted(call, call.part("id"))
    try:
        await call.run(lambda connection, administrator: rename_institution(connection, administrator, wanted))
    except InvalidRequestError as error:
        return await _rename_form(call, status=error.status, problem=told(call, error))
    return done("/institutions", "institution_renamed")


async def _rename_form(call: Call, *, status: int = 200, problem: str = "") -> Response:
    logical_id = call.part("id")
    found = await call.run(lambda connection, administrator: find_institution(connection, administrator, logical_id))
    return render(call, "institution_form.html", status=status, problem=problem, institution=found)


def _wanted(call: Call, logical_id: str) -> Institution:
    return Institution(logical_id, call.form.get("name_zh", ""), call.form.get("name_en", ""))
