"""`/apps/images/`: search of studies, with thumbnails."""

from __future__ import annotations

from sqlalchemy import Connection
from starlette.responses import Response

from foramen.identity.rights.institutions import Institution, list_institutions
from foramen.image_database.layout import last_page, page_number, render
from foramen.image_database.page import Call
from foramen.image_database.record import record_of
from foramen.image_database.studies import MODALITIES, Found, search
from foramen.kernel.errors import InvalidRequestError, PayloadTooLargeError


async def search_page(call: Call) -> Response:
    """Search, newest first."""
    number, problem, status = 1, "", 200
    try:
        number = page_number(call)
        async with record_of(call) as record:
            found = await search(record, call.query, number)
    except (InvalidRequestError, PayloadTooLargeError) as error:
        found, problem, status = Found([], more=False), error.message, 400
    return render(
        call,
        "search.html",
        status=status,
        problem=problem,
        found=found,
        number=number,
        last=last_page(),
        modalities=MODALITIES,
        institutions=[
            (item.id, item.name_zh if call.language == "zh" else item.name_en) for item in await _institutions(call)
        ],
    )


async def _institutions(call: Call) -> list[Institution]:
    """Institutions to choose from: all where they share the record, else the person's own."""

    def work(connection: Connection) -> list[Institution]:
        return list_institutions(connection)

    found = await call.env.database.run(work)
    if call.env.settings.institutions != "shared" and "manage-institutions" not in call.permissions:
        return [item for item in found if item.id == call.account.institution]
    return found
