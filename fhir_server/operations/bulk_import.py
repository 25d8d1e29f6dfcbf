"""`$import`: NDJSON in the body, or files below the import folder, as a job. For administrators.

https://github.com/smart-on-fhir/bulk-import/blob/master/import-manifest.md (a proposal; no HL7 standard yet)
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

from starlette.responses import Response

from fhir_server.bulk.files import sync_folder
from fhir_server.bulk.service import IMPORT, UPLOAD
from fhir_server.jobs.runner import new_job_id
from fhir_server.operations.parameters import Parameters, parameters_of
from fhir_server.route import Route
from fhir_server.search.parameters import resource_types
from fhir_server.server import Call
from foramen.kernel.errors import (
    ForbiddenError,
    InvalidRequestError,
    PayloadTooLargeError,
    UnsupportedMediaTypeError,
)

_NDJSON = {"application/fhir+ndjson", "application/ndjson", "application/x-ndjson", "application/jsonl"}
_NAMES = ("inputFormat", "inputSource", "storageDetail", "input")
_WRITE_AT_ONCE = 1 << 20


async def import_(call: Call) -> Response:
    """Take the input, or the list of inputs, and start the job."""
    if call.access.wall is not None:
        raise ForbiddenError("An import writes into the records of all institutions: a token without bounds is needed")
    media_type = call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    job_id = new_job_id()
    inputs = [await _upload(call, job_id)] if media_type in _NDJSON else _listed(call, await parameters_of(call))
    request = {"inputs": inputs, "trace_id": call.trace_id, "url": f"{call.server.own_url}/$import"}
    try:
        await call.server.jobs.submit(IMPORT, request, owner=call.access.context, job_id=job_id)
    except BaseException:
        shutil.rmtree(call.server.bulk.folder(job_id), ignore_errors=True)
        raise
    return Response(status_code=202, headers={"Content-Location": f"{call.server.own_url}/$bulk-status/{job_id}"})


async def _upload(call: Call, job_id: str) -> dict[str, str]:
    """Write the body to disk as it comes; it is durable before the job exists.

    Raises
    ------
    PayloadTooLargeError
        413.
    UnsupportedMediaTypeError
        415: compressed otherwise than by gzip.
    """
    encoding = call.request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise UnsupportedMediaTypeError("An upload may be compressed by gzip only")
    folder = await call.server.bulk.upload_folder(job_id)
    try:
        await _write_body(call, folder / UPLOAD)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return {"path": str(folder / UPLOAD), "name": "body", "type": ""}


async def _write_body(call: Call, path: Path) -> None:
    limit, size = call.server.limits.import_max_bytes, 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        waiting = bytearray()
        async for chunk in call.request.stream():
            size += len(chunk)
            if size > limit:
                raise PayloadTooLargeError(f"The body is larger than {limit} bytes")
            waiting += chunk
            if len(waiting) >= _WRITE_AT_ONCE:
                await asyncio.to_thread(file.write, bytes(waiting))
                waiting.clear()
        file.write(waiting)
        file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())
    await asyncio.to_thread(sync_folder, path.parent)
    if size == 0:
        raise InvalidRequestError("The body is empty", issue_code="required")


def _listed(call: Call, parameters: Parameters) -> list[dict[str, str]]:
    parameters.check_known(_NAMES)
    form = parameters.text("inputFormat")
    if form is not None and form.replace(" ", "+") not in _NDJSON:
        raise InvalidRequestError("inputFormat must be application/fhir+ndjson", issue_code="not-supported")
    inputs = [_input(call, parts) for parts in parameters.parts("input")]
    if not inputs:
        raise InvalidRequestError("There is no input", issue_code="required", expression=("Parameters.parameter",))
    return inputs


def _input(call: Call, parts: Parameters) -> dict[str, str]:
    resource_type = parts.text("type") or ""
    if resource_type and resource_type not in resource_types():
        raise InvalidRequestError("An input names an unknown resource type", issue_code="value")
    path = import_path(call.server.limits.import_folder, parts.required_text("url"))
    return {"path": str(path), "name": path.name, "type": resource_type}


def import_path(folder: Path | None, url: str) -> Path:
    """Return the file of an input URL.

    Only ``file:`` URLs below the import folder are taken: nothing is fetched from a network, and no link leads out.

    Raises
    ------
    InvalidRequestError
        Another URL, or no such file there.
    """
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise InvalidRequestError("An input must be a file: URL below the import folder", issue_code="not-supported")
    if folder is None:
        raise InvalidRequestError(
            "No import folder is configured (FORAMEN_FHIR_IMPORT_FOLDER)", issue_code="not-supported"
        )
    path = unquote(parts.path)
    if "\x00" not in path:
        root, found = folder.resolve(), Path(path).resolve()
        if found.is_relative_to(root) and found.is_file():
            return found
    raise InvalidRequestError("There is no such file below the import folder", issue_code="not-found")


ROUTES: tuple[Route, ...] = (Route("POST", "$import", import_, "", "operation", administrator=True),)
