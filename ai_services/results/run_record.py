"""What a run was made of, kept in its Provenance so that it can be done again: inputs, version, settings, software.

https://hl7.org/fhir/R4/provenance.html: `entity` are the images, each with the hash of what was read of it; an
extension holds what R4 has no element for. Hashes of weights are the identifiers of the Devices that are its agents.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ai_services.models.registry import Manifest
from ai_services.models.runtime import current_execution, device_of_providers
from ai_services.prediction import Prediction
from ai_services.results.context import Resource, RunContext
from terminology import systems

SOFTWARE = ("foramen", "onnxruntime", "numpy", "scipy", "pydicom", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg")
"""Packages whose version can change a result."""
_READ = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"),
    *("SliceThickness", "SpacingBetweenSlices"),
)
_PLAIN = (
    "pipeline",
    "version",
    "manifest_sha256",
    "study",
    "series",
    "input_hash",
    "mask_sha256",
    "device",
    "settings",
)


@dataclass(frozen=True, slots=True)
class InputHash:
    """SHA-256 of one image: of its decoded pixel values, and of the attributes that say what and where they are."""

    pixels: str
    header: str


@dataclass(frozen=True, slots=True)
class Computation:
    """What a prediction was computed with; observed where and when that happened, and kept with the prediction.

    Parameters
    ----------
    version, manifest_sha256 : the package that spoke
    device : ``cpu`` or ``cuda`` as the models really ran, and what processor
    settings : JSON of what the sessions were set to, and which provider each of them got
    software : package → version
    inputs : SOP Instance UID → hashes of what was read
    """

    version: str
    manifest_sha256: str
    device: str
    settings: str
    software: Mapping[str, str]
    inputs: Mapping[str, InputHash]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is needed to do a run again.

    Parameters
    ----------
    pipeline, version, manifest_sha256 : the package that spoke
    study, series : UIDs of the source
    input_hash : of the study's own series, as the Task said
    mask_sha256 : of the mask that was found, see `mask_sha256`
    device, settings, software, inputs : as `Computation`
    """

    pipeline: str
    version: str
    manifest_sha256: str
    study: str
    series: str
    input_hash: str
    mask_sha256: str
    device: str
    settings: str
    software: Mapping[str, str]
    inputs: Mapping[str, InputHash] = field(default_factory=dict)


def observe_computation(prediction: Prediction, datasets: Sequence[Dataset], manifest: Manifest) -> Computation:
    """Say what a prediction was computed with; to be called by the process that computed it, at once.

    Later nothing of it is certain: another worker, or the same one after an update, may be the one that publishes.

    Parameters
    ----------
    prediction : what was said
    datasets : the instances that were analysed, with pixel data
    manifest : of the version that spoke
    """
    execution = current_execution()
    settings = {"asked": execution.device, "providers": dict(prediction.providers), "threads": execution.threads}
    return Computation(
        version=manifest.version,
        manifest_sha256=manifest.digest,
        device=f"{device_of_providers(prediction.providers.values())}; {processor()}",
        settings=orjson.dumps(settings, option=orjson.OPT_SORT_KEYS).decode(),
        software=software(),
        inputs=input_hashes(datasets),
    )


def record_run(prediction: Prediction, context: RunContext, computation: Computation) -> RunRecord:
    """Record a run.

    Parameters
    ----------
    prediction : what it said
    context : of the run
    computation : what it was computed with
    """
    return RunRecord(
        pipeline=context.pipeline,
        version=computation.version,
        manifest_sha256=computation.manifest_sha256,
        study=prediction.study_instance_uid,
        series=prediction.series_instance_uid,
        input_hash=context.input_hash,
        mask_sha256=mask_sha256(prediction.mask),
        device=computation.device,
        settings=computation.settings,
        software=computation.software,
        inputs=computation.inputs,
    )


def input_hashes(datasets: Sequence[Dataset]) -> dict[str, InputHash]:
    """Hash what a pipeline reads of each image; decoded, so that another lossless encoding is the same image."""
    found = {}
    for dataset in datasets:
        read = {keyword: _plain(dataset.get(keyword)) for keyword in _READ}
        values = dataset.pixel_array
        pixels = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
        header = orjson.dumps(read, option=orjson.OPT_SORT_KEYS)
        found[str(dataset.SOPInstanceUID)] = InputHash(_sha256(pixels), _sha256(header))
    return found


def mask_sha256(mask: NDArray[np.uint8]) -> str:
    """SHA-256 of a mask: its shape in decimal, then its bytes from slice to column."""
    return _sha256(",".join(map(str, mask.shape)).encode() + b";" + np.ascontiguousarray(mask).tobytes())


def software() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for name in SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def processor() -> str:
    """Name of the processor: instruction sets change the last digits."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def as_extension(record: RunRecord) -> Resource:
    """The record, without the inputs' hashes, as an extension of a Provenance."""
    parts = [{"url": name.replace("_", "-"), "valueString": str(getattr(record, name))} for name in _PLAIN]
    parts += [{"url": "software", "valueString": f"{name} {value}"} for name, value in sorted(record.software.items())]
    return {"url": systems.EXTENSION_ANALYSIS_RUN, "extension": parts}


def hash_extension(found: InputHash) -> Resource:
    """An image's hashes, as an extension of its entity."""
    parts = [{"url": name, "valueString": getattr(found, name)} for name in ("pixels", "header")]
    return {"url": systems.EXTENSION_INPUT_HASH, "extension": parts}


def read_record(provenance: Resource) -> RunRecord | None:
    """Read the record back from a Provenance; None where there is none, or not a whole one."""
    parts = _parts(provenance, systems.EXTENSION_ANALYSIS_RUN)
    values = {name: [item["valueString"] for item in parts if item["url"] == name.replace("_", "-")] for name in _PLAIN}
    if any(len(found) != 1 for found in values.values()):
        return None
    words = [item["valueString"].partition(" ") for item in parts if item["url"] == "software"]
    inputs = {}
    for entity in provenance.get("entity", []):
        hashes = {item["url"]: item["valueString"] for item in _parts(entity, systems.EXTENSION_INPUT_HASH)}
        uid = str(entity.get("what", {}).get("identifier", {}).get("value", "")).removeprefix("urn:oid:")
        if uid and set(hashes) == {"pixels", "header"}:
            inputs[uid] = InputHash(**hashes)
    plain: dict[str, Any] = {name: found[0] for name, found in values.items()}
    return RunRecord(**plain, software={name: value for name, _, value in words}, inputs=inputs) if inputs else None


def _parts(holder: Resource, url: str) -> list[dict[str, str]]:
    return next((item.get("extension", []) for item in holder.get("extension", []) if item.get("url") == url), [])


def _plain(value: Any) -> Any:
    """Numbers as numbers, however they were written; text as text."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if hasattr(value, "__iter__"):
        return [_plain(item) for item in value]
    return float(value)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
