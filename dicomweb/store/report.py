"""What became of each instance: the Store Instances Response Module (DICOM PS3.18 Annex I, §10.5.3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from dicomweb.instance_check import RejectedInstanceError
from dicomweb.instance_header import InstanceHeader


class WarningReason(IntEnum):
    """Values of (0008,1196), PS3.18 Table I.2-1."""

    COERCED = 0xB000
    ELEMENTS_DISCARDED = 0xB006
    DOES_NOT_MATCH_SOP_CLASS = 0xB007


@dataclass(frozen=True, slots=True)
class Remark:
    """Why an instance was stored with a warning; `original` is an Original Attributes Sequence (JSON model)."""

    reason: WarningReason
    original: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """One instance that the archive and the index hold."""

    header: InstanceHeader
    remark: Remark | None = None


@dataclass(slots=True)
class StoreReport:
    """What became of each part, in the order of the parts."""

    stored: list[Stored] = field(default_factory=list)
    failed: list[RejectedInstanceError] = field(default_factory=list)

    @property
    def status(self) -> int:
        """200 all stored, 202 stored with failures or warnings, 409 none stored (PS3.18 Table 10.5.3-1)."""
        if not self.stored:
            return 409
        return 202 if self.failed or any(item.remark for item in self.stored) else 200


def response_module(report: StoreReport, base: str) -> dict[str, Any]:
    """Write the module as DICOM JSON.

    Parameters
    ----------
    base : public URL of this gateway
    """
    module: dict[str, Any] = {"00081190": {"vr": "UR"}}  # type 2: empty where there is no one study to name
    if len(studies := sorted({item.header.study_instance_uid for item in report.stored})) == 1:
        module["00081190"]["Value"] = [f"{base}/studies/{studies[0]}"]
    named = [error for error in report.failed if error.sop_instance_uid]
    nameless = [error for error in report.failed if not error.sop_instance_uid]
    if named:
        module["00081198"] = {"vr": "SQ", "Value": [_failed_item(error) for error in named]}
    if report.stored:
        module["00081199"] = {"vr": "SQ", "Value": [_stored_item(item, base) for item in report.stored]}
    if nameless:
        items = [{"00081197": {"vr": "US", "Value": [int(error.reason)]}} for error in nameless]
        module["0008119A"] = {"vr": "SQ", "Value": items}
    return module


def _stored_item(stored: Stored, base: str) -> dict[str, Any]:
    header = stored.header
    path = (
        f"studies/{header.study_instance_uid}/series/{header.series_instance_uid}/instances/{header.sop_instance_uid}"
    )
    item: dict[str, Any] = {
        "00081150": {"vr": "UI", "Value": [header.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [header.sop_instance_uid]},
        "00081190": {"vr": "UR", "Value": [f"{base}/{path}"]},
    }
    if stored.remark is not None:
        item["00081196"] = {"vr": "US", "Value": [int(stored.remark.reason)]}
        if stored.remark.original:
            item["04000561"] = {"vr": "SQ", "Value": list(stored.remark.original)}
    return item


def _failed_item(error: RejectedInstanceError) -> dict[str, Any]:
    item: dict[str, Any] = {
        "00081155": {"vr": "UI", "Value": [error.sop_instance_uid]},
        "00081197": {"vr": "US", "Value": [int(error.reason)]},
    }
    if error.sop_class_uid:
        item["00081150"] = {"vr": "UI", "Value": [error.sop_class_uid]}
    return item
