"""Which series of a study the lumbar pipeline can read, and why it cannot read the others (stage 4).

A pure function of DICOM attributes (PS3.3 C.7.3.1, C.7.6.2, C.8.3.1). What is not known to be lumbar is declined.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from ai_services.imaging.geometry import image_orientation, is_enhanced
from ai_services.imaging.header_values import image_type, number_of
from ai_services.imaging.refusal import refusal
from ai_services.imaging.suitability import readable_headers, require_complete
from ai_services.prediction import PipelineError
from terminology.analysis_reasons import ANALYSIS_REASONS

MR_IMAGE_STORAGE = {"1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"}
MINIMUM_SAGITTAL_COSINE = 0.75
MINIMUM_FIELD_OF_VIEW_MM = 120.0

_LUMBAR = re.compile(
    r"lumbar|lumbal|lumbo|(?:^|[^a-z])(?:l[ _./-]?s?[ _./-]?sp(?:ine)?|ls[ _-]?spine|lws|lwk)(?:[^a-z]|$)"
    r"|lspine|lsspine|腰",
    re.IGNORECASE,
)
# PS3.16 CID 4 / Annex L: body parts that hold, or may hold, the lumbar spine.
_BODY_PARTS_THAT_MAY_BE_LUMBAR = {"", "SPINE", "WHOLESPINE", "TLSPINE", "LSPINE", "LSSPINE", "LUMBARSPINE", "UNKNOWN"}
_LUMBAR_REGION_CODES = {"122496007", "T-11503", "297171002", "T-D2340"}
_NOT_T2 = re.compile(r"(?:^|[^a-z0-9])t1|mp-?rage|flair|(?:^|[^a-z])(?:dwi|adc|epi|swi|pd)(?:[^a-z]|$)", re.IGNORECASE)
_T2_LIKE = re.compile(
    r"(?:^|[^a-z0-9])t2(?!\s?\*|star)|(?:^|[^a-z])(?:space|vista|cube|ciss|fiesta)(?:[^a-z]|$)", re.IGNORECASE
)
_FAT_SUPPRESSED = re.compile(r"stir|tirm|fat[ _-]?sat|spair|dixon|(?:^|[^a-z])(?:fs|water)(?:[^a-z]|$)", re.IGNORECASE)
# Image Type, third and later values: images computed from other images (PS3.3 C.7.6.1.1.2, C.8.3.1.1.1, vendors').
_COMPUTED = re.compile(
    r"MPR|MIP|MINIP|PROJECTION|CPR|REFORMAT|AVERAGE|SUBTRACT|ADDITION|RATIO|MAP|^ADC|^FA$|^ADDED|^MEAN|CSA|FUSED|SCREEN|CAPTURE"
    r"|SYNTH|PERCENT|POST[ _-]?PROC"
)
_PLAIN = {"OTHER"}  # what a file that was no DICOM before is given when it becomes one
_LOCALISER = re.compile(r"locali[sz]er|scout|survey|(?:^|[^a-z])loc(?:[^a-z]|$)", re.IGNORECASE)


NEARNESS = (
    "not-lumbar-mr",
    "not-lumbar-ct",
    "geometry-missing",
    "enhanced-multi-frame",
    "localizer",
    "derived-series",
    "not-sagittal",
    "not-t2",
    "field-of-view-too-small",
)
"""How near to being read a series was, from the farthest; codes not listed (an incomplete stack) were nearest."""


@dataclass(frozen=True, slots=True)
class DeclinedSeries:
    """A series that the pipeline does not read, with the reason for people."""

    series_instance_uid: str
    reason_code: str
    text_en: str
    text_zh: str


@dataclass(frozen=True, slots=True)
class SeriesSelection:
    """The series to read (None when there is none), every series declined, and the reason where there is no image."""

    series_instance_uid: str | None
    declined: tuple[DeclinedSeries, ...]
    without_images: str = "no-mr-images"

    def require(self) -> str:
        """The chosen series' UID, or a PipelineError that says why there is none."""
        if self.series_instance_uid is not None:
            return self.series_instance_uid
        images = [item for item in self.declined if item.reason_code not in ("not-mr-image", "not-ct-image")]
        if not images:
            raise refusal(self.without_images)
        # The reason nearest to success explains most: an incomplete series says more than the wrong body part.
        best = max(
            images, key=lambda item: NEARNESS.index(item.reason_code) if item.reason_code in NEARNESS else len(NEARNESS)
        )
        raise PipelineError(best.reason_code, best.text_en, best.text_zh)


def select_series(series: Sequence[Sequence[Dataset]]) -> SeriesSelection:
    """Choose the sagittal T2-like MR series of the lumbar spine.

    Parameters
    ----------
    series : for each series its instances (headers suffice: `Dataset.from_json` of DICOMweb metadata)

    Returns
    -------
    the series with the best rank: no fat suppression, then finer pixels, then more slices, then lower UID
    """
    return best_of(series, reason_to_decline, _rank)


def best_of(
    series: Sequence[Sequence[Dataset]],
    decline: Callable[[Dataset], str | None],
    rank: Callable[[Sequence[Dataset]], tuple[float, ...]],
    without_images: str = "no-mr-images",
) -> SeriesSelection:
    """Choose the series of the lowest rank, then of the lower UID, among those that are complete and not declined.

    Parameters
    ----------
    decline : reason code from one image's header, or None
    without_images : reason code where no series holds an image of the modality
    """
    declined: list[DeclinedSeries] = []
    accepted: list[tuple[tuple[float, ...], str]] = []
    for instances in series:
        if not instances:
            continue
        uid = str(instances[0].get("SeriesInstanceUID", ""))
        try:
            with readable_headers():
                if (code := decline(instances[0])) is not None:
                    raise refusal(code)
                require_complete(instances)
        except PipelineError as exc:
            declined.append(DeclinedSeries(uid, exc.reason_code, exc.text_en, exc.text_zh))
        else:
            accepted.append((rank(instances), uid))
    accepted.sort()
    reason = ANALYSIS_REASONS["other-series-preferred"]
    for _, uid in accepted[1:]:
        declined.append(DeclinedSeries(uid, reason.code, reason.display, reason.display_zh))
    return SeriesSelection(accepted[0][1] if accepted else None, tuple(declined), without_images)


def reason_to_decline(dataset: Dataset) -> str | None:
    """Reason code from one image's header, or None where the series may be read."""
    sop_class = str(dataset.get("SOPClassUID", ""))
    if str(dataset.get("Modality", "")) != "MR" or (sop_class and sop_class not in MR_IMAGE_STORAGE):
        return "not-mr-image"
    if not is_lumbar(dataset):
        return "not-lumbar-mr"
    if _LOCALISER.search(_descriptions(dataset)) or "LOCALIZER" in image_type(dataset):
        return "localizer"
    if is_computed(dataset):
        return "derived-series"
    if is_enhanced(dataset):
        return "enhanced-multi-frame"
    if image_orientation(dataset) is None or dataset.get("PixelSpacing") is None:
        return "geometry-missing"
    if not is_sagittal(dataset):
        return "not-sagittal"
    if not is_t2_like(dataset):
        return "not-t2"
    if _field_of_view_mm(dataset) < MINIMUM_FIELD_OF_VIEW_MM:
        return "field-of-view-too-small"
    return None


def is_computed(dataset: Dataset) -> bool:
    """Whether the images were made from other images: reformats, projections, maps, screen shots, corrected copies.

    A file that was converted into DICOM is SECONDARY too; it passes where it refers to no other image and claims to be
    nothing special. PRIMARY images that a scanner filtered (DERIVED, PRIMARY) pass and rank behind untouched ones.
    """
    words = image_type(dataset)
    if not {"DERIVED", "SECONDARY"} & set(words[:2]):
        return False
    if dataset.get("SourceImageSequence") or any(_COMPUTED.search(word) for word in words[2:]):
        return True
    return "SECONDARY" in words[:2] and not set(words[2:]) <= _PLAIN


def is_lumbar(dataset: Dataset) -> bool:
    """True only where a body part, region code or description says lumbar and no body part contradicts it."""
    body_part = re.sub(r"[^A-Z]", "", str(dataset.get("BodyPartExamined", "") or "").upper())
    lumbar_body_part = bool(_LUMBAR.search(str(dataset.get("BodyPartExamined", "") or "")))
    if body_part not in _BODY_PARTS_THAT_MAY_BE_LUMBAR and not lumbar_body_part:
        return False
    regions = [str(item.get("CodeValue", "")) for item in dataset.get("AnatomicRegionSequence") or []]
    if regions and not set(regions) & _LUMBAR_REGION_CODES and not lumbar_body_part:
        return False
    return lumbar_body_part or bool(set(regions) & _LUMBAR_REGION_CODES) or bool(_LUMBAR.search(_descriptions(dataset)))


def is_sagittal(dataset: Dataset) -> bool:
    """Whether the plane's normal runs mostly left to right."""
    cosines = image_orientation(dataset)
    return cosines is not None and abs(float(np.cross(cosines[0], cosines[1])[0])) >= MINIMUM_SAGITTAL_COSINE


def is_t2_like(dataset: Dataset) -> bool:
    """T2 by description, otherwise by spin echo with long echo and repetition time (SPACE counts)."""
    text = f"{dataset.get('SeriesDescription', '') or ''} {dataset.get('ProtocolName', '') or ''}"
    if _NOT_T2.search(str(dataset.get("SeriesDescription", "") or "")):
        return False
    if _T2_LIKE.search(text):
        return True
    scanning = dataset.get("ScanningSequence") or []
    scanning = [scanning] if isinstance(scanning, str) else list(scanning)
    echo_ms, repetition_ms = number_of(dataset, "EchoTime"), number_of(dataset, "RepetitionTime")
    return "SE" in scanning and "EP" not in scanning and echo_ms >= 60 and repetition_ms >= 800


def _rank(instances: Sequence[Dataset]) -> tuple[float, ...]:
    first = instances[0]
    derived = float("DERIVED" in image_type(first))
    suppressed = float(bool(_FAT_SUPPRESSED.search(_descriptions(first))))
    pixel_mm = float(first.PixelSpacing[0])
    return (suppressed, derived, round(pixel_mm, 1), -float(len(instances)))


def _descriptions(dataset: Dataset) -> str:
    keywords = ("SeriesDescription", "ProtocolName", "StudyDescription", "RequestedProcedureDescription")
    return " | ".join(str(dataset.get(keyword, "") or "") for keyword in keywords)


def _field_of_view_mm(dataset: Dataset) -> float:
    """Extent of the image along the patient's head-foot direction."""
    cosines = image_orientation(dataset)
    if cosines is None or dataset.get("Rows") is None or dataset.get("Columns") is None:
        return float("inf")  # size not sent with the metadata: the volume itself will tell
    rows_mm = int(dataset.Rows) * float(dataset.PixelSpacing[0])
    columns_mm = int(dataset.Columns) * float(dataset.PixelSpacing[1])
    return rows_mm if abs(cosines[1][2]) >= abs(cosines[0][2]) else columns_mm
