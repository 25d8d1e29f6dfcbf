"""Stage 4 → 5: what a pipeline hands on. Plain frozen values, no network and no framework types.

Absent values follow https://hl7.org/fhir/R4/valueset-data-absent-reason.html; frames follow DICOM PS3.3 C.7.6.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SegmentLabel = Literal["vertebra", "vertebra-body", "vertebra-arch", "disc", "canal"]
FindingMethod = Literal["model", "derived"]
FindingQuality = Literal["ok", "low_resolution", "missing_sequence"]

LUMBAR_DISC_LEVELS: tuple[str, ...] = ("L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2", "T12-L1", "T11-T12")
"""Disc levels counted from the lowest disc upwards (clinical-model: a disc is named by its two vertebrae)."""

# https://hl7.org/fhir/R4/codesystem-data-absent-reason.html, the codes that the project uses or may use.
DATA_ABSENT_REASON_CODES: frozenset[str] = frozenset(
    {
        "unknown",
        "asked-unknown",
        "temp-unknown",
        "not-asked",
        "asked-declined",
        "masked",
        "not-applicable",
        "unsupported",
        "as-text",
        "error",
        "not-a-number",
        "negative-infinity",
        "positive-infinity",
        "not-performed",
        "not-permitted",
    }
)


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of the mask.

    Parameters
    ----------
    number : DICOM Segment Number, from 1, equal to the voxel value in `Prediction.mask`
    label : kind of structure
    name : stable English name, for example ``L4-L5 disc``
    level : disc level (``L4-L5``) or vertebra (``L4``), None where the segment spans levels
    """

    number: int
    label: SegmentLabel
    name: str
    level: str | None

    def __post_init__(self) -> None:
        if not 1 <= self.number <= 255:
            raise ValueError(f"segment number must be 1..255, is {self.number}")


@dataclass(frozen=True, slots=True)
class Finding:
    """One clinical statement about one level: a value, or the reason why there is none.

    Parameters
    ----------
    code : finding id of the clinical model (``F01``, ``F06``, ``F13``, ``canal-ap``, …)
    level : disc level such as ``L4-L5``; None for a statement about the whole study
    value : number or code; exactly one of `value` and `absent_reason` is set
    unit : UCUM code of a numeric value (``mm``, ``{ratio}``); None for codes
    confidence : calibrated probability 0..1 of the value, None for measurements
    uncertainty : half width of the uncertainty of a number, in `unit`
    method : ``model`` for a network's output, ``derived`` for a measurement on the mask
    absent_reason : code of FHIR data-absent-reason
    absent_text_zh, absent_text_en : why it is absent, for people
    segment_number : segment that the finding belongs to
    quality : limits of the input that widen the uncertainty
    expected : expectation of an ordinal code under the model's probabilities, for example 3.4 for a Pfirrmann grade
    """

    code: str
    level: str | None
    value: float | str | None = None
    unit: str | None = None
    confidence: float | None = None
    uncertainty: float | None = None
    method: FindingMethod = "model"
    absent_reason: str | None = None
    absent_text_zh: str | None = None
    absent_text_en: str | None = None
    segment_number: int | None = None
    quality: FindingQuality = "ok"
    expected: float | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.absent_reason is None):
            raise ValueError(f"finding {self.code} {self.level}: exactly one of value and absent_reason must be set")
        if self.absent_reason is not None and self.absent_reason not in DATA_ABSENT_REASON_CODES:
            raise ValueError(f"finding {self.code}: unknown data-absent-reason {self.absent_reason!r}")
        if self.absent_reason is not None and not (self.absent_text_zh and self.absent_text_en):
            raise ValueError(f"finding {self.code}: an absent value needs its text in Chinese and English")
        if isinstance(self.value, float) and not np.isfinite(self.value):
            raise ValueError(f"finding {self.code} {self.level}: value is not finite")
        if isinstance(self.value, str) and self.unit is not None:
            raise ValueError(f"finding {self.code}: a code has no unit")
        if self.confidence is not None and not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"finding {self.code}: confidence must be 0..1, is {self.confidence}")


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model spoke: name, version and SHA-256 (hex) of its weights file."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Numbering:
    """How levels got their names (clinical-model §1.1); `confident` False forbids exporting a plan.

    Parameters
    ----------
    method : what was counted from
    confident : whether nothing speaks against the count
    reason : what speaks against it, in words
    probability : share of like series in which the count agreed with readers; None where it was not measured
    transitional : whether something looks like a transitional vertebra
    """

    method: Literal["sacrum-only", "counted-from-T12-rib", "counted-from-C2"]
    confident: bool
    reason: str | None = None
    probability: float | None = None
    transitional: bool = False


@dataclass(frozen=True, slots=True)
class DiscScores:
    """Everything the models say about one disc, beyond what is called; for evaluation, review and drift watch.

    Parameters
    ----------
    label : counted from the lowest disc, from 1
    level : name of the level, None where numbering does not reach
    morphology : what is called, a code of finding F01
    pfirrmann : calibrated probabilities of grades I to V
    probabilities : calibrated probability of each yes-or-no label: ``bulging``, ``herniation``, ``narrowing``, …
    """

    label: int
    level: str | None
    morphology: str
    pfirrmann: tuple[float, float, float, float, float]
    probabilities: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Everything that one run of a pipeline says about one series.

    Parameters
    ----------
    study_instance_uid, series_instance_uid : the source series
    sop_instance_uids : the source instances in slice order: entry k is slice k of `mask`
    mask : uint8, shape (slice, row, column), segment numbers in the grid of the ORIGINAL images, 0 background
    affine_lps : shape (4, 4), maps (slice, row, column, 1) to LPS patient coordinates in millimetres, voxel centres
    segments : in ascending order of number
    findings : per level from the lowest up, then findings about the whole study
    numbering : how levels were named
    models : the models that took part
    seconds : stage name to seconds
    discs : scores of each disc found, from the lowest up
    providers : role of each network to the ONNX Runtime execution provider that its session really got
    modality : of the source series; options are only recommended on MR
    notice_en, notice_zh : a limit of the pipeline that every result must carry, for people
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uids: tuple[str, ...]
    mask: NDArray[np.uint8]
    affine_lps: NDArray[np.float64]
    segments: tuple[Segment, ...]
    findings: tuple[Finding, ...]
    numbering: Numbering
    models: tuple[ModelIdentity, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)
    discs: tuple[DiscScores, ...] = ()
    providers: Mapping[str, str] = field(default_factory=dict)
    modality: Literal["MR", "CT"] = "MR"
    notice_en: str | None = None
    notice_zh: str | None = None

    def __post_init__(self) -> None:
        if self.mask.dtype != np.uint8 or self.mask.ndim != 3:
            raise ValueError("mask must be uint8 with axes (slice, row, column)")
        if self.mask.shape[0] != len(self.sop_instance_uids):
            raise ValueError(f"mask has {self.mask.shape[0]} slices, but {len(self.sop_instance_uids)} instances")
        if self.affine_lps.shape != (4, 4):
            raise ValueError("affine_lps must have shape (4, 4)")
        numbers = [segment.number for segment in self.segments]
        if numbers != sorted(set(numbers)):
            raise ValueError("segment numbers must be unique and ascending")
        unknown = set(np.unique(self.mask).tolist()) - {0, *numbers}
        if unknown:
            raise ValueError(f"mask holds numbers without a segment: {sorted(unknown)}")


class PipelineError(Exception):
    """A run could not look. Not an HTTP error: it becomes Task.statusReason.

    Parameters
    ----------
    reason_code : stable code, one of `terminology.analysis_reasons`, for example ``not-lumbar-mr``
    text_en, text_zh : why, for people; never patient data
    retryable : True where trying again later may help
    """

    def __init__(self, reason_code: str, text_en: str, text_zh: str, *, retryable: bool = False) -> None:
        super().__init__(f"{reason_code}: {text_en}")
        self.reason_code = reason_code
        self.text_en = text_en
        self.text_zh = text_zh
        self.retryable = retryable

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Survive pickling between worker processes (keyword-only arguments would be lost)."""
        return _rebuild_pipeline_error, (self.reason_code, self.text_en, self.text_zh, self.retryable)


def _rebuild_pipeline_error(reason_code: str, text_en: str, text_zh: str, retryable: bool) -> PipelineError:
    return PipelineError(reason_code, text_en, text_zh, retryable=retryable)
