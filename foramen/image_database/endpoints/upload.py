"""`/apps/images/upload`: send files as a form; each is converted as `foramen ingest` does, and answered for."""

from __future__ import annotations

from starlette.responses import FileResponse, Response

from foramen.identity.pages import SECURITY_HEADERS
from foramen.image_database.layout import SCRIPT, render
from foramen.image_database.page import Call
from foramen.image_database.receiving import MOST_FILES
from foramen.image_database.uploads import UploadReport, take
from foramen.kernel.errors import InvalidRequestError


async def upload_page(call: Call) -> Response:
    """Show the form."""
    return _shown(call)


async def upload(call: Call) -> Response:
    """Take the files of the form; 200 also when some were refused: the page says which, and why."""
    if call.folder is None or not any(call.folder.iterdir()):
        return _shown(call, status=400, problem="No file was chosen")
    try:
        report = await take(call, call.folder)
    except InvalidRequestError as error:
        return _shown(call, status=400, problem=error.message)
    return _shown(call, report=report)


async def script(_: Call) -> Response:
    """The script that adds progress and dropping of files."""
    return FileResponse(SCRIPT, media_type="text/javascript; charset=utf-8", headers=SECURITY_HEADERS)


def _shown(call: Call, *, status: int = 200, problem: str = "", report: UploadReport | None = None) -> Response:
    limit = call.env.settings.upload_bytes
    return render(
        call,
        "upload.html",
        status=status,
        problem=problem,
        script=True,
        report=report,
        most_files=MOST_FILES,
        most_mib=limit // 1024**2,
        separate=call.env.settings.institutions != "shared",
    )
