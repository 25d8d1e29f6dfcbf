"""Does a run again from its Provenance, and says: the same, different, or cannot be done, and why (stage 11).

The record and the pixels are reached through the doors that everybody uses; nothing is written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Protocol

import numpy as np
from highdicom.seg import segread
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ai_services.models.registry import Manifest
from ai_services.models.runtime import Execution, current_execution, device_of
from ai_services.prediction import PipelineError, Prediction
from ai_services.results.comparison import (
    TOLERANCE,
    Difference,
    SegmentComparison,
    compare_masks,
    compare_observations,
    observations_of,
)
from ai_services.results.context import Resource, RunContext, models_version
from ai_services.results.run_record import RunRecord, input_hashes, mask_sha256, processor, read_record, software
from foramen.kernel.errors import DeletedError, ForbiddenError, NotFoundError
from terminology import systems

SAME, DIFFERENT = "same", "different"
Read = Callable[[str], Awaitable[Resource]]
RunPipeline = Callable[[Sequence[Dataset], Manifest], Prediction]


class CannotError(Exception):
    """The run cannot be done again here; the message says why."""


class Pixels(Protocol):
    """Where images come from: the DICOMweb door."""

    def retrieve_series(self, study_instance_uid: str, series_instance_uid: str) -> list[Dataset]:
        """Instances of a series with pixel data."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Parameters
    ----------
    verdict : ``same`` or ``different``
    version : that spoke, then and now
    images : how many were compared by hash
    mask_identical : whether the mask's hash is that of the record
    segments : each segment of the stored SEG against the new mask
    findings : how many findings were compared
    differences : each value that is not the same
    notes : what was not as it was then, and may explain a difference
    """

    verdict: str
    version: str
    images: int
    mask_identical: bool
    segments: tuple[SegmentComparison, ...]
    findings: int
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = field(default_factory=tuple)


async def reproduce(
    read: Read,
    pixels: Pixels,
    provenance_id: str,
    manifest_of: Callable[[RunRecord], Manifest],
    run: RunPipeline,
    tolerance: float = TOLERANCE,
) -> Outcome:
    """Do the run of a Provenance again.

    Parameters
    ----------
    read : reference → resource
    pixels : the archive
    provenance_id : logical id
    manifest_of : finds the recorded version, checked; raises `CannotError`
    run : the pipeline
    tolerance : of numbers

    Raises
    ------
    CannotError
        It cannot be done again; the message says why.
    """
    provenance = await _read(read, f"Provenance/{provenance_id}", "the Provenance")
    record = read_record(provenance)
    if record is None:
        raise CannotError("this Provenance names no analysis run with the hashes of its inputs")
    manifest = manifest_of(record)
    await _check_weights(read, provenance, manifest)
    series = _inputs(pixels, record)
    context = _context(record, manifest)
    stored = _stored_mask(pixels, record, context, series)
    observations = await _as_written(read, provenance)
    notes = _notes(record)
    try:
        prediction = run(series, manifest)
    except PipelineError as declined:
        if declined.reason_code == "model-integrity":
            raise CannotError("the weights are not there, or not what was registered") from declined
        now = Difference("the run", "answered", f"declined: {declined.reason_code}")
        return Outcome(DIFFERENT, manifest.version, len(series), False, (), 0, (now,), notes)
    segments = tuple(compare_masks(_sorted_as(prediction, stored), prediction.mask, prediction.segments))
    count, differences = compare_observations(observations, observations_of(prediction, context), tolerance)
    identical = mask_sha256(prediction.mask) == record.mask_sha256
    same = identical and all(item.same for item in segments) and not differences
    verdict = SAME if same else DIFFERENT
    return Outcome(verdict, manifest.version, len(series), identical, segments, count, tuple(differences), notes)


def execution_of(record: RunRecord) -> Execution:
    """The settings that a run had; its device, where this installation offers it."""
    import orjson

    threads = int(orjson.loads(record.settings).get("threads", current_execution().threads))
    wanted = record.device.partition(";")[0]
    offered = device_of(Execution("auto", threads))
    return Execution("cuda" if wanted == "cuda" and offered == "cuda" else "cpu", threads)


async def _read(read: Read, reference: str, what: str) -> Resource:
    try:
        return await read(reference)
    except (NotFoundError, DeletedError) as exc:
        raise CannotError(f"{what} is not in the record") from exc


async def _check_weights(read: Read, provenance: Resource, manifest: Manifest) -> None:
    """The Devices that signed as agents must be the weights of the version."""
    said = set()
    for agent in provenance.get("agent", []):
        device = await _read(read, agent["who"]["reference"], "a model (Device)")
        said |= {item["value"] for item in device.get("identifier", []) if item["system"] == systems.IDENTIFIER_MODEL}
    if said != {file.identity.sha256 for file in manifest.models.values()}:
        raise CannotError("the models that the Provenance names are not those of the version that it names")


def _inputs(pixels: Pixels, record: RunRecord) -> list[Dataset]:
    """The images as they were: all there, and each with the hashes of then."""
    try:
        found = pixels.retrieve_series(record.study, record.series)
    except (NotFoundError, ForbiddenError) as exc:
        raise CannotError("the images are not in the archive, or are rejected") from exc
    series = [dataset for dataset in found if str(dataset.SOPInstanceUID) in record.inputs]
    if len(series) != len(record.inputs):
        raise CannotError(f"{len(record.inputs) - len(series)} of {len(record.inputs)} images are not in the archive")
    hashes = input_hashes(series)
    changed = sum(hashes[uid] != hashed for uid, hashed in record.inputs.items())
    if changed:
        raise CannotError(f"{changed} of {len(series)} images are not what was analysed: their hashes differ")
    return series


def _context(record: RunRecord, manifest: Manifest) -> RunContext:
    """The context of then, as far as UIDs and values of results depend on it."""
    return RunContext(
        study_instance_uid=record.study,
        input_hash=record.input_hash,
        pipeline=record.pipeline,
        pipeline_version=models_version([file.identity for file in manifest.models.values()]),
        imaging_study="ImagingStudy/compared",
        patient="Patient/compared",
        trace_id="",
        recorded_at=datetime.now(UTC),
        synthetic=False,
    )


def _stored_mask(
    pixels: Pixels, record: RunRecord, context: RunContext, series: Sequence[Dataset]
) -> dict[str, NDArray[np.uint8]]:
    """The mask of the stored SEG, slice by SOP Instance UID."""
    try:
        found = pixels.retrieve_series(record.study, context.uid("seg-series"))
    except (NotFoundError, ForbiddenError) as exc:
        raise CannotError("its segmentation is not in the archive, or is rejected") from exc
    buffer = BytesIO()
    found[0].save_as(buffer, enforce_file_format=True)
    uids = [str(dataset.SOPInstanceUID) for dataset in series]
    mask = segread(BytesIO(buffer.getvalue())).get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    return dict(zip(uids, mask.astype(np.uint8), strict=True))


def _sorted_as(prediction: Prediction, stored: dict[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.stack([stored[uid] for uid in prediction.sop_instance_uids])


async def _as_written(read: Read, provenance: Resource) -> list[Resource]:
    """The Observations in their first version: what persons changed later is not what the run said."""
    found = []
    for target in provenance["target"]:
        reference = str(target.get("reference", "")).split("/_history/")[0]
        if reference.startswith("Observation/"):
            found.append(await _read(read, f"{reference}/_history/1", "a finding"))
    return found


def _notes(record: RunRecord) -> tuple[str, ...]:
    """What is not as it was."""
    now: dict[str, Any] = software()
    notes = [
        f"{name} was {then}, is {now.get(name, 'absent')}"
        for name, then in sorted(record.software.items())
        if now.get(name) != then
    ]
    device, _, chip = record.device.partition("; ")
    here = execution_of(record).device
    notes += [f"device was {device}, is {here}"] if here != device else []
    notes += [f"processor was {chip}, is {processor()}"] if chip != processor() else []
    return tuple(notes)
