"""The kinds of drift between archive, index and record, by name; which are mended at once, which wait for a person.

IHE RAD TF-1 §PIR (Patient Information Reconciliation); docs/how-to/reconcile_archive.md says each in words.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of drift.

    Parameters
    ----------
    needs_person : nothing is changed until somebody decides; else it is mended when it is found
    can_confirm : a person may confirm it here; else it goes away when its cause does (in archive or record)
    """

    code: str
    zh: str
    en: str
    needs_person: bool = False
    can_confirm: bool = False


NOT_INDEXED = Kind("not-indexed", "归档中有、索引中没有的检查", "In the archive, and unknown to the index")
LATE = Kind("late-instances", "登记之后才到的影像", "Instances that came after registration")
HEADER_CHANGED = Kind("header-changed", "同一 SOP 实例的文件头已更改", "A changed header under the same UID")
PATIENT_CHANGED = Kind("patient-changed", "归档中影像的患者 ID 已更正", "Another Patient ID in the archive than before")
MOVED = Kind("moved", "影像移到了另一检查或序列", "Instances moved to another study or series")
PATIENT_MERGED = Kind("patient-merged", "患者已合并，检查随之转移", "Patient merged: the study follows the survivor")
DEMOGRAPHICS = Kind("demographics", "元数据改用病历中的患者信息", "The record's patient data laid over the files'")
RECORD_CHANGED = Kind("record-changed", "病历中的检查条目被改动，已恢复", "The ImagingStudy was changed; set right")
RECORD_MISSING = Kind("record-missing", "病历中缺少检查条目，已补上", "The ImagingStudy was never written; written")
WITHDRAWN = Kind("withdrawn", "检查已无影像，条目已作废", "No images left: ImagingStudy entered in error")
PATIENT_LOST = Kind(
    "patient-lost", "影像不再属于原患者，条目已作废", "No longer the patient's images: ImagingStudy entered in error"
)
MISSING = Kind(
    *("missing-in-archive", "索引中有、归档中已没有的影像", "Instances went from the archive behind our back"),
    needs_person=True,
    can_confirm=True,
)
RECORD_DELETED = Kind(
    *("record-deleted", "病历中的检查条目被删除", "The ImagingStudy was deleted while images stand"),
    needs_person=True,
    can_confirm=True,
)
DUPLICATE = Kind(
    "duplicate-instance", "归档中同一 SOP 实例有多份", "Several files under one SOP Instance UID", needs_person=True
)
PATIENTS_MIXED = Kind(
    "patients-mixed", "同一检查含多名患者的影像", "The files of the study name different patients", needs_person=True
)
PATIENT_INACTIVE = Kind(
    *("patient-inactive", "患者记录已停用且无合并去向", "The patient's record is inactive and names no survivor"),
    needs_person=True,
)
UNREADABLE = Kind(
    "unreadable", "归档中的文件无法读取", "A file of the archive cannot be read as DICOM", needs_person=True
)

KINDS: dict[str, Kind] = {
    kind.code: kind
    for kind in (
        *(MISSING, RECORD_DELETED, DUPLICATE, PATIENTS_MIXED, PATIENT_INACTIVE, UNREADABLE),
        *(NOT_INDEXED, LATE, HEADER_CHANGED, PATIENT_CHANGED, MOVED, PATIENT_MERGED, DEMOGRAPHICS),
        *(RECORD_CHANGED, RECORD_MISSING, WITHDRAWN, PATIENT_LOST),
    )
}
"""Those that wait for a person first."""
