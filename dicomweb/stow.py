"""Stage 1, receive: STOW-RS. Answers only when Orthanc has acknowledged and the index knows every accepted instance.

DICOM PS3.18 §10.5 (Store transaction), §10.5.3 (Store Instances Response Module).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, Any

import orjson
from pydicom import Dataset, dcmread
from starlette.requests import Request
from starlette.responses import Response

from dicomweb.archive import Archive
from dicomweb.dicom_json import dicom_json
from dicomweb.instance_check import FailureReason, RejectedInstanceError, parse_instance
from dicomweb.instance_header import InstanceHeader, header_of
from dicomweb.institutions import bounds_of
from dicomweb.multipart import Part, boundary_of, close_parts, read_parts
from dicomweb.study_index import StudyIndex, same_patient
from foramen.kernel.access_context import AccessContext, Reach
from foramen.kernel.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    UnsupportedMediaTypeError,
)
from foramen.kernel.settings import Settings

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
_CHUNK_BYTES = 256 * 1024


@dataclass(slots=True)
class StoreReport:
    """What became of each part."""

    stored: list[InstanceHeader] = field(default_factory=list)
    failed: list[RejectedInstanceError] = field(default_factory=list)

    @property
    def status(self) -> int:
        """200 all stored, 202 some, 409 none (PS3.18 Table 10.5.3-2)."""
        if not self.failed:
            return 200
        return 202 if self.stored else 409


class Stow:
    """The Store transaction."""

    def __init__(self, settings: Settings, archive: Archive, index: StudyIndex) -> None:
        self._settings, self._archive, self._index = settings, archive, index
        self._parsing = asyncio.Semaphore(2)

    async def store(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        """POST /studies and POST /studies/{study}."""
        if context.reach("ImagingStudy", "c") is not Reach.EVERYTHING:
            raise ForbiddenError("A patient scope cannot store images")
        if bounds_of(context, self._settings.institutions) is not None:
            # Whose they are is known after they were stored; a refusal for some would tell of patients elsewhere.
            raise ForbiddenError("Where institutions are separate, images are stored by services")
        parts = await self._receive(request)
        try:
            if not parts:
                raise InvalidRequestError("The body holds no instance")
            report = await self._store_all(parts, request.path_params.get("study"), trace_id)
        finally:
            close_parts(parts)
        body = orjson.dumps(self._response_module(report))
        return Response(body, status_code=report.status, media_type=DICOM_JSON)

    async def _receive(self, request: Request) -> list[Part]:
        limit = self._settings.max_stow_bytes
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            raise PayloadTooLargeError(f"The body is larger than {limit} bytes")
        content_type = request.headers.get("content-type", "")
        if content_type.partition(";")[0].strip().lower() == DICOM:
            return [await _single_part(request, limit)]
        kind, boundary = boundary_of(content_type)
        if kind not in ("", DICOM):
            raise UnsupportedMediaTypeError("Only parts of type application/dicom are stored")
        return await read_parts(request.stream(), boundary, limit)

    async def _store_all(self, parts: list[Part], study_uid: str | None, trace_id: str) -> StoreReport:
        report = StoreReport()
        indexed: list[tuple[InstanceHeader, str]] = []
        try:
            for part in parts:
                try:
                    header, orthanc_id = await self._store_one(part, study_uid)
                    indexed.append((header, orthanc_id))
                    report.stored.append(header)
                except RejectedInstanceError as error:
                    report.failed.append(error)
        finally:
            # Also when the archive fails half-way (503): what it holds already is indexed and will be registered.
            if indexed:
                wait_s = float(self._settings.stable_study_s)
                await self._index.add(indexed, trace_id=trace_id, due_in_s=wait_s)
        return report

    async def _store_one(self, part: Part, study_uid: str | None) -> tuple[InstanceHeader, str]:
        if part.media_type not in ("", DICOM):
            raise RejectedInstanceError(FailureReason.CANNOT_UNDERSTAND, "The part is not application/dicom")
        async with self._parsing:
            header = await asyncio.to_thread(_inspect, part.body)
        names = (header.sop_class_uid, header.sop_instance_uid)
        mismatch = FailureReason.STUDY_OR_PATIENT_MISMATCH
        if study_uid is not None and header.study_instance_uid != study_uid:
            raise RejectedInstanceError(mismatch, "The instance belongs to another study than the URL names", *names)
        known = await self._index.study(header.study_instance_uid)
        if known is not None and not same_patient(known.attributes, header.study):
            raise RejectedInstanceError(mismatch, "The study belongs to another patient", *names)
        for orthanc_id in await self._archive.find_instance(header.sop_instance_uid):
            return header, await self._same_or_refuse(orthanc_id, header, part.body)
        part.body.seek(0)
        acknowledged = await self._archive.store(_chunks(part.body))
        if acknowledged is None:
            raise RejectedInstanceError(FailureReason.CANNOT_UNDERSTAND, "The archive cannot read the instance", *names)
        orthanc_id, status = acknowledged
        if status == "AlreadyStored":  # another delivery won in between
            return header, await self._same_or_refuse(orthanc_id, header, part.body)
        return header, orthanc_id

    async def _same_or_refuse(self, orthanc_id: str, header: InstanceHeader, body: IO[bytes]) -> str:
        """Accept a second delivery of the same instance; refuse another one under its UID, and keep the original."""
        try:
            original = await self._archive.read(orthanc_id, keep=False)
        except NotFoundError:
            original = b""
        same = bool(original) and await asyncio.to_thread(_is_same, original, header, body)
        if not same:
            reason, text = FailureReason.DUPLICATE_SOP_INSTANCE, "Another instance with this SOP Instance UID is stored"
            raise RejectedInstanceError(reason, text, header.sop_class_uid, header.sop_instance_uid)
        return orthanc_id

    def _response_module(self, report: StoreReport) -> dict[str, Any]:
        base = self._settings.dicom_web_base
        module: dict[str, Any] = {}
        if studies := sorted({header.study_instance_uid for header in report.stored}):
            module["00081190"] = {"vr": "UR", "Value": [f"{base}/studies/{studies[0]}"]}
        named = [error for error in report.failed if error.sop_instance_uid]
        nameless = [error for error in report.failed if not error.sop_instance_uid]
        if named:
            module["00081198"] = {"vr": "SQ", "Value": [_failed_item(error) for error in named]}
        if report.stored:
            module["00081199"] = {"vr": "SQ", "Value": [_stored_item(header, base) for header in report.stored]}
        if nameless:
            items = [{"00081197": {"vr": "US", "Value": [int(error.reason)]}} for error in nameless]
            module["0008119A"] = {"vr": "SQ", "Value": items}
        return module


def _stored_item(header: InstanceHeader, base: str) -> dict[str, Any]:
    path = (
        f"studies/{header.study_instance_uid}/series/{header.series_instance_uid}/instances/{header.sop_instance_uid}"
    )
    return {
        "00081150": {"vr": "UI", "Value": [header.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [header.sop_instance_uid]},
        "00081190": {"vr": "UR", "Value": [f"{base}/{path}"]},
    }


def _failed_item(error: RejectedInstanceError) -> dict[str, Any]:
    item: dict[str, Any] = {
        "00081155": {"vr": "UI", "Value": [error.sop_instance_uid]},
        "00081197": {"vr": "US", "Value": [int(error.reason)]},
    }
    if error.sop_class_uid:
        item["00081150"] = {"vr": "UI", "Value": [error.sop_class_uid]}
    return item


async def _single_part(request: Request, limit: int) -> Part:
    part = Part(BytesIO())
    async for chunk in request.stream():
        part.size += len(chunk)
        if part.size > limit:
            raise PayloadTooLargeError(f"The body is larger than {limit} bytes")
        part.body.write(chunk)
    return part


async def _chunks(body: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := body.read(_CHUNK_BYTES):
        yield chunk


def _inspect(body: IO[bytes]) -> InstanceHeader:
    dataset = parse_instance(body)
    has_pixel_data = "PixelData" in dataset
    for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if keyword in dataset:
            delattr(dataset, keyword)
    return header_of(dataset, has_pixel_data=has_pixel_data)


def _is_same(original: bytes, header: InstanceHeader, body: IO[bytes]) -> bool:
    """Same study, series and class, and the same content."""
    dataset = dcmread(BytesIO(original))
    names = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPClassUID)
    if names != (header.study_instance_uid, header.series_instance_uid, header.sop_class_uid):
        return False
    body.seek(0)
    delivered = body.read()
    return delivered == original or _fingerprint(dataset) == _fingerprint(dcmread(BytesIO(delivered)))


def _fingerprint(dataset: Dataset) -> str:
    """Hash of what the instance shows: decoded pixels where there are any, else its whole content.

    A sender may deliver one image again in another lossless transfer syntax: that is the same instance.
    """
    digest = hashlib.sha256()
    if "PixelData" in dataset and "Rows" in dataset:
        try:
            pixels = dataset.pixel_array
        except Exception:  # noqa: BLE001  no codec for it (video): compare the stored bytes
            digest.update(bytes(dataset.PixelData))
        else:
            digest.update(pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())
    else:
        model = dicom_json(dataset)
        digest.update(orjson.dumps(model, option=orjson.OPT_SORT_KEYS, default=str))
    return digest.hexdigest()
