"""Files of a form → DICOM instances → STOW-RS with the person's own rights, with an answer for every file.

DICOM PS3.18 §10.5 (Store), Table I.2-2 (Store Instances Response); FailureReason of PS3.4 Table B.2-1.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
from pydantic import ValidationError

from foramen.image_database.page import Call
from foramen.image_database.record import record_of
from foramen.ingest.sidecar import Description
from foramen.ingest.sources import Item, find, read
from foramen.ingest.zip_archive import Limits
from foramen.kernel.errors import InvalidRequestError
from foramen.kernel.settings import Settings

_BATCH_BYTES = 32 * 1024 * 1024
_BATCH_ITEMS = 100
_EXPANSION = 4
_REASONS = {
    0x0110: "the archive could not process it",
    0x0111: "another image is stored under its UID; the original stays",
    0xA700: "the archive is out of resources",
    0xA900: "a UID that names it is missing",
    0xA901: "its study belongs to another patient",
    0xC000: "the archive cannot understand it",
    0xC122: "its transfer syntax is not supported",
}
_AT_ONCE = asyncio.Semaphore(2)
FIELDS = (
    *("patient_id", "issuer", "patient_name", "patient_birth_date", "patient_sex", "study_description"),
    *("study_date", "series_description", "modality", "body_part"),
)


@dataclass(slots=True)
class FileReport:
    """What became of one file: instances stored, what was mended, and why instances were refused."""

    name: str
    stored: int = 0
    mended: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


@dataclass(slots=True)
class UploadReport:
    """What became of an upload; `studies` are the UIDs of what was stored."""

    files: dict[str, FileReport] = field(default_factory=dict)
    studies: list[str] = field(default_factory=list)

    def of(self, name: str) -> FileReport:
        """Return the report of a file, in the order the files were first spoken of."""
        return self.files.setdefault(name, FileReport(name))

    @property
    def stored(self) -> int:
        """Number of instances stored."""
        return sum(report.stored for report in self.files.values())

    @property
    def refused(self) -> int:
        """Number of files of which something was refused."""
        return sum(bool(report.refused) for report in self.files.values())


def description_of_form(form: dict[str, str]) -> Description | None:
    """Return what the form says of files that are no DICOM; None: it names no patient.

    Raises
    ------
    InvalidRequestError
        A field is not as it must be; names the field, never its value.
    """
    values = {name: form[name] for name in FIELDS if form.get(name)}
    for name in ("patient_birth_date", "study_date"):
        if name in values:
            values[name] = values[name].replace("-", "")
    if "patient_id" not in values:
        return None
    try:
        return Description.model_validate(values)
    except ValidationError as exc:
        fields = ", ".join(sorted({str(error["loc"][0]) for error in exc.errors() if error["loc"]}))
        raise InvalidRequestError(f"A field is not as it must be: {fields}") from exc


async def take(call: Call, folder: Path) -> UploadReport:
    """Convert and store what lies in a folder.

    Raises
    ------
    InteropError
        The gateway refused all of it (no right to store), or does not answer. What was stored before stays stored.
    """
    report = UploadReport()
    description = description_of_form(call.form)
    async with _AT_ONCE:
        async for batch in _batches(folder, description, call.env.settings, report):
            await _store(call, batch, report)
    return report


async def _batches(
    folder: Path, description: Description | None, settings: Settings, report: UploadReport
) -> AsyncIterator[list[Item]]:
    limits = Limits(settings.upload_bytes, _EXPANSION * settings.upload_bytes)
    items = read(find([folder], follow_links=False), None, description, limits=limits)
    batch: list[Item] = []
    size = 0
    while (item := await asyncio.to_thread(_next, items)) is not None:
        about = report.of(item.source or item.name)
        about.mended += item.mended
        if item.dataset is None:
            about.refused.append(item.fault)
            continue
        batch.append(item)
        size += len(item.content)
        if size > _BATCH_BYTES or len(batch) >= _BATCH_ITEMS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _next(items: Iterator[Item]) -> Item | None:
    return next(items, None)


async def _store(call: Call, batch: list[Item], report: UploadReport) -> None:
    boundary = secrets.token_hex(16)
    parts = [
        part
        for item in batch
        for part in (f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(), item.content, b"\r\n")
    ]
    body = b"".join((*parts, f"--{boundary}--\r\n".encode()))
    async with record_of(call) as record:
        response = await record.store(body, f'multipart/related; type="application/dicom"; boundary={boundary}')
    refused, nameless = failures_of(response)
    for item in batch:
        about = report.of(item.source or item.name)
        dataset: Any = item.dataset
        reason = refused.get(str(dataset.SOPInstanceUID), "")
        if reason or (nameless and response.status_code == 409):
            about.refused.append(reason or nameless)
            continue
        about.stored += 1
        study = str(dataset.StudyInstanceUID)
        if study not in report.studies:
            report.studies.append(study)


def failures_of(response: httpx.Response) -> tuple[dict[str, str], str]:
    """Return the reason by SOP Instance UID, and the reason of instances that the answer cannot name. Pure."""
    try:
        module = orjson.loads(response.content) if response.content else {}
    except orjson.JSONDecodeError:
        return {}, "the archive gave no report" if response.status_code >= 300 else ""
    refused: dict[str, str] = {}
    for item in (module.get("00081198") or {}).get("Value") or []:
        uid = ((item.get("00081155") or {}).get("Value") or [""])[0]
        refused[str(uid)] = _reason(item)
    others = (module.get("0008119A") or {}).get("Value") or []
    return refused, _reason(others[0]) if others else ""


def _reason(item: dict[str, Any]) -> str:
    code = int(((item.get("00081197") or {}).get("Value") or [0x0110])[0])
    return _REASONS.get(code, f"the archive refused it ({code:04X}H)")
