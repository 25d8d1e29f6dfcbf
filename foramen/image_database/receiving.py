"""Receive a form with files into a private folder, with limits that are checked while it comes in.

RFC 7578 (multipart/form-data).
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path, PurePosixPath

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from foramen.kernel.errors import InvalidRequestError, PayloadTooLargeError, UnsupportedMediaTypeError
from foramen.kernel.settings import Settings

MOST_FILES = 5000
_MOST_FIELDS = 32
_LONGEST_FIELD = 4096
_LONGEST_NAME = 120


async def receive_files(request: Request, settings: Settings) -> tuple[dict[str, str], Path]:
    """Read a form; returns its text fields and the folder its files lie in, which the caller removes.

    Raises
    ------
    UnsupportedMediaTypeError
        Not a form with files.
    PayloadTooLargeError
        Larger than `upload_bytes`, or more than 5,000 files.
    InvalidRequestError
        Malformed or cut off.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise UnsupportedMediaTypeError("The body must be multipart/form-data", issue_code="not-supported")
    parser = MultiPartParser(
        request.headers,
        _limited(request, settings.upload_bytes),
        max_files=MOST_FILES,
        max_fields=_MOST_FIELDS,
        max_part_size=_LONGEST_FIELD,
    )
    try:
        form = await parser.parse()
    except MultiPartException as exc:
        if "Too many" in exc.message:
            raise PayloadTooLargeError(f"At most {MOST_FILES} files at once") from exc
        raise InvalidRequestError("The form cannot be read") from exc
    except ClientDisconnect as exc:
        raise InvalidRequestError("The form was cut off", issue_code="incomplete") from exc
    try:
        folder = Path(tempfile.mkdtemp(prefix="upload-", dir=_place(settings)))
        try:
            await asyncio.to_thread(_keep, form, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    finally:
        await form.close()
    fields = {name: value.strip() for name, value in form.multi_items() if isinstance(value, str) and value.strip()}
    return fields, folder


def _place(settings: Settings) -> Path:
    """A folder of our own state, which others cannot read."""
    place = settings.home / "uploads"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


async def _limited(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most:
        raise PayloadTooLargeError(f"The files are larger than {most} bytes together")
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise PayloadTooLargeError(f"The files are larger than {most} bytes together")
        yield chunk


def _keep(form: FormData, folder: Path) -> None:
    taken: set[str] = set()
    for _, value in form.multi_items():
        if not isinstance(value, UploadFile) or not value.filename:
            continue
        name = safe_name(value.filename)
        while name in taken:
            name = f"_{name}"
        taken.add(name)
        value.file.seek(0)
        with (folder / name).open("xb") as target:
            shutil.copyfileobj(value.file, target, 1024 * 1024)


def safe_name(sent: str) -> str:
    """Return a plain file name: no path, no control character, not hidden; the end of it is kept, where kinds stand."""
    name = PurePosixPath(sent.replace("\\", "/")).name
    name = re.sub(r"[\x00-\x1f\x7f/:]", "_", name).lstrip(".")
    while len(name.encode()) > _LONGEST_NAME:
        name = name[1:]
    return name or "file"
