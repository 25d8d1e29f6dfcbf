"""Which series of a study the lumbar pipeline can read, and why it cannot read the others (stage 4).

A pure function of DICOM attributes (PS3.3 C.7.3.1, C.7.6.2, C.8.3.1). What is not known to be lumbar is declined.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from ai_services.imaging.geometry import image_orientation, is_enhanced
from ai_services.prediction import PipelineError

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
_LOCALISER = re.compile(r"locali[sz]er|scout|survey|(?:^|[^a-z])loc(?:[^a-z]|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DeclinedSeries:
    """A series that the pipeline does not read, with the reason for people."""

    series_instance_uid: str
    reason_code: str
    text_en: str
    text_zh: str


@dataclass(frozen=True, slots=True)
class SeriesSelection:
    """The series to read (None when there is none) and every series declined."""

    series_instance_uid: str | None
    declined: tuple[DeclinedSeries, ...]

    def require(self) -> str:
        """The chosen series' UID, or a PipelineError that says why there is none."""
        if self.series_instance_uid is not None:
            return self.series_instance_uid
        images = [item for item in self.declined if item.reason_code != "not-mr-image"]
        if not images:
            raise PipelineError("no-mr-images", "the study holds no MR images", "该检查不含 MR 图像")
        # The reason nearest to success explains most: wrong contrast says more than wrong body part.
        order = ("no-sagittal-t2-series", "enhanced-multi-frame", "geometry-missing", "not-lumbar-mr")
        best = min(images, key=lambda item: order.index(item.reason_code))
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
    declined: list[DeclinedSeries] = []
    accepted: list[tuple[tuple[float, ...], str]] = []
    for instances in series:
        if not instances:
            continue
        uid = str(instances[0].get("SeriesInstanceUID", ""))
        reason = reason_to_decline(instances[0])
        if reason is not None:
            declined.append(DeclinedSeries(uid, *reason))
        else:
            accepted.append((_rank(instances), uid))
    accepted.sort()
    for _, uid in accepted[1:]:
        declined.append(DeclinedSeries(uid, "other-series-preferred", "another series fits better", "另一序列更合适"))
    return SeriesSelection(accepted[0][1] if accepted else None, tuple(declined))


def reason_to_decline(dataset: Dataset) -> tuple[str, str, str] | None:
    """Reason code, English and Chinese text, or None where the series can be read."""
    sop_class = str(dataset.get("SOPClassUID", ""))
    if str(dataset.get("Modality", "")) != "MR" or (sop_class and sop_class not in MR_IMAGE_STORAGE):
        return "not-mr-image", "not an MR image series", "不是 MR 图像序列"
    if not is_lumbar(dataset):
        return "not-lumbar-mr", "nothing says that this is the lumbar spine", "没有信息表明这是腰椎图像"
    if _LOCALISER.search(_descriptions(dataset)) or "LOCALIZER" in _image_type(dataset):
        return "no-sagittal-t2-series", "a localiser is not analysed", "定位像不参与分析"
    if is_enhanced(dataset):
        return "enhanced-multi-frame", "enhanced multi-frame MR is not supported yet", "尚不支持增强型多帧 MR"
    if image_orientation(dataset) is None or dataset.get("PixelSpacing") is None:
        return "geometry-missing", "the images do not say where they are in the patient", "图像缺少空间位置信息"
    if not is_sagittal(dataset):
        return "no-sagittal-t2-series", "the images are not sagittal", "图像不是矢状位"
    if not is_t2_like(dataset):
        return "no-sagittal-t2-series", "the contrast is not known to be T2", "无法确认图像为 T2 对比"
    if _field_of_view_mm(dataset) < MINIMUM_FIELD_OF_VIEW_MM:
        return "no-sagittal-t2-series", "the field of view is too small for a lumbar spine", "视野过小, 不足以覆盖腰椎"
    return None


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
    echo_ms, repetition_ms = _number(dataset, "EchoTime"), _number(dataset, "RepetitionTime")
    return "SE" in scanning and "EP" not in scanning and echo_ms >= 60 and repetition_ms >= 800


def _rank(instances: Sequence[Dataset]) -> tuple[float, ...]:
    first = instances[0]
    derived = float("DERIVED" in _image_type(first))
    suppressed = float(bool(_FAT_SUPPRESSED.search(_descriptions(first))))
    pixel_mm = float(first.PixelSpacing[0])
    return (suppressed, derived, round(pixel_mm, 1), -float(len(instances)))


def _descriptions(dataset: Dataset) -> str:
    keywords = ("SeriesDescription", "ProtocolName", "StudyDescription", "RequestedProcedureDescription")
    return " | ".join(str(dataset.get(keyword, "") or "") for keyword in keywords)


def _image_type(dataset: Dataset) -> list[str]:
    value = dataset.get("ImageType") or []
    return [value] if isinstance(value, str) else [str(item).upper() for item in value]


def _number(dataset: Dataset, keyword: str) -> float:
    value = dataset.get(keyword)
    return float(value) if value not in (None, "") else 0.0


def _field_of_view_mm(dataset: Dataset) -> float:
    """Extent of the image along the patient's head-foot direction."""
    cosines = image_orientation(dataset)
    if cosines is None or dataset.get("Rows") is None or dataset.get("Columns") is None:
        return float("inf")  # size not sent with the metadata: the volume itself will tell
    rows_mm = int(dataset.Rows) * float(dataset.PixelSpacing[0])
    columns_mm = int(dataset.Columns) * float(dataset.PixelSpacing[1])
    return rows_mm if abs(cosines[1][2]) >= abs(cosines[0][2]) else columns_mm
