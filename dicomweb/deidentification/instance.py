"""One data set de-identified: a new one is built of what may stay. Pure: (data set, profile, identity) → data set, log.

DICOM PS3.15 E.1.1 (de-identifier), E.3.1 (clean pixel data), E.3.4 (clean structured content), E.3.10 (safe private).
The log names attributes and what was done with them, never a value.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRLittleEndian

from dicomweb.deidentification.elements import ElementRules
from dicomweb.deidentification.identity import Identity
from dicomweb.deidentification.known_values import KnownValues
from dicomweb.deidentification.pixels import CleanedPixels, clean_pixels
from dicomweb.deidentification.profile import Profile, describe, rules

_DEEPEST = 32
_CONTENT_SEQUENCE, _VALUE_TYPE = 0x0040A730, 0x0040A040
_DROPPED_CONTENT = frozenset({"TEXT", "PNAME"})
_CODES = ("CodeValue", "LongCodeValue", "URNCodeValue")
_METHOD = "Foramen, PS3.15 Annex E"


class HeldBackError(Exception):
    """An instance cannot be given out; `reason` is a fixed word, without any value of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Deidentified:
    """The result: a data set ready to be written, the log (attribute, action) → count, and what pixels needed."""

    dataset: Dataset
    log: Counter[tuple[str, str]]
    pixels: CleanedPixels | None


def deidentify(dataset: Dataset, profile: Profile, identity: Identity, *, blacken: bool = False) -> Deidentified:
    """De-identify one instance.

    Raises
    ------
    HeldBackError
        Its class is not among the rules', it is nested too deep, or its pixels cannot be made sure of.
    """
    sop_class = str(dataset.get("SOPClassUID") or "")
    rule = rules()["sop_classes"].get(sop_class)
    if rule is None:
        raise HeldBackError("sop-class-not-covered")
    if not all(dataset.get(name) for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")):
        raise HeldBackError("uid-missing")
    if _CONTENT_SEQUENCE in dataset and not profile.options.clean_structured_content:
        raise HeldBackError("structured-content")
    work = _Work(profile, identity)
    result = work.dataset(dataset, 0)
    syntax = str(getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", "") or ExplicitVRLittleEndian)
    pixels = None
    if rule["pixels"] != "none" or "PixelData" in dataset:
        look = profile.options.clean_pixel_data
        pixels = clean_pixels(dataset, result, syntax, rule["pixels"], look=look, blacken=blacken)
        if pixels.held_back:
            raise HeldBackError(pixels.held_back)
        syntax = pixels.transfer_syntax_uid
    known = KnownValues(dataset, profile)
    work.sweep(result, known)
    _name(result, identity, profile, pixels)
    result.file_meta = _meta(result, syntax)
    return Deidentified(result, work.log, pixels)


class _Work:
    """Builds the new data set and counts what it did."""

    def __init__(self, profile: Profile, identity: Identity) -> None:
        self._profile = profile
        self._rules = ElementRules(profile, identity)
        self._safe = {(one["creator"], one["group"], one["element"]): one["vr"] for one in rules()["safe_private"]}
        self.log: Counter[tuple[str, str]] = Counter()

    def dataset(self, source: Dataset, depth: int) -> Dataset:
        """Build the de-identified copy of a data set or item."""
        if depth > _DEEPEST:
            raise HeldBackError("nested-too-deep")
        target = Dataset()
        for tag in list(source.keys()):
            if tag.group in (0x0002, 0x0004) or tag.element == 0x0000:
                continue
            try:
                element = source[tag]
            except Exception:  # noqa: BLE001  pydicom raises many kinds for values it cannot parse
                self._note(tag, "removed")
                continue
            if tag.is_private:
                self._private(source, element, target)
            elif tag.group & 0xFF00 in (0x5000, 0x6000):  # Curves and overlays (PS3.15 E.3.3) go as whole groups.
                self._note(tag, "removed")
            elif element.VR == "SQ":
                self._sequence(element, target, depth)
            else:
                self._plain(element, target)
        return target

    def _plain(self, element: DataElement, target: Dataset) -> None:
        try:
            done, value = self._rules.apply(element)
            if done != "removed":
                target.add(DataElement(element.tag, element.VR, value))
        except Exception:  # noqa: BLE001  a value that breaks its own representation stays out
            done = "removed"
            target.pop(element.tag, None)
        self._note(element.tag, done)

    def _private(self, source: Dataset, element: DataElement, target: Dataset) -> None:
        """Private elements go, but the numbers that the rules name where the option keeps them (E.3.10)."""
        group, number = element.tag.group, element.tag.element
        creator = source.get((group, number >> 8)) if number >= 0x1000 else None
        name = str(creator.value).strip() if creator is not None and creator.VR == "LO" else ""
        vr = self._safe.get((name, group, number & 0xFF))
        if not self._profile.options.safe_private or vr is None:
            self._note(element.tag, "removed")
            return
        try:
            values = element.value if element.VM > 1 else [element.value]
            numbers = [int(item) if vr == "IS" else float(item) for item in values]
            target.private_block(group, name, create=True).add_new(number & 0xFF, vr, numbers)
            self._note(element.tag, "kept")
        except Exception:  # noqa: BLE001  no number of the kind the rules name
            self._note(element.tag, "removed")

    def _sequence(self, element: DataElement, target: Dataset, depth: int) -> None:
        action = self._profile.action(element.tag)
        if action in ("X", "Z"):
            if action == "Z":
                target.add(DataElement(element.tag, "SQ", Sequence()))
            self._note(element.tag, "removed" if action == "X" else "emptied")
            return
        items = []
        for item in element.value:
            built = None if _is_foreign_code(item) or _is_text_content(item) else self.dataset(item, depth + 1)
            if built is None or _lost_its_name(item, built):
                self._note(element.tag, "item removed")
                continue
            items.append(built)
        if items or not element.value:
            target.add(DataElement(element.tag, "SQ", Sequence(items)))
        self._note(element.tag, "cleaned")

    def sweep(self, target: Dataset, known: KnownValues) -> None:
        """Empty what still shows one of the patient's own values."""
        for tag in list(target.keys()):
            element = target[tag]
            if element.VR == "SQ":
                for item in element.value:
                    self.sweep(item, known)
            elif known.stand_in(element) and not _is_our_dummy(element):
                element.value = None
                self._note(tag, "emptied: a value of the patient")

    def _note(self, tag: BaseTag, done: str) -> None:
        self.log[(describe(tag), done)] += 1


def _is_our_dummy(element: DataElement) -> bool:
    return str(element.value) == "REMOVED"


def _is_foreign_code(item: Dataset) -> bool:
    """Whether an item is a code of a scheme that the rules do not name."""
    if not any(name in item for name in _CODES):
        return False
    scheme = str(item.get("CodingSchemeDesignator") or "")
    return scheme not in rules()["coding_schemes"]


def _is_text_content(item: Dataset) -> bool:
    return str(item.get(_VALUE_TYPE, DataElement(_VALUE_TYPE, "CS", "")).value).strip() in _DROPPED_CONTENT


def _lost_its_name(item: Dataset, built: Dataset) -> bool:
    """Whether a content item no longer says what it is about, or a coded one what it says."""
    names = ("ConceptNameCodeSequence", "ConceptCodeSequence", "MeasuredValueSequence")
    return _VALUE_TYPE in item and any(item.get(name) and not built.get(name) for name in names)


def _name(result: Dataset, identity: Identity, profile: Profile, pixels: CleanedPixels | None) -> None:
    """Say who it is now and what was done (PS3.15 E.1.1 step 7; PS3.3 C.12.1.1.1)."""
    result.SpecificCharacterSet = "ISO_IR 192"
    result.PatientName = result.PatientID = identity.pseudonym
    result.PatientIdentityRemoved = "YES"
    result.DeidentificationMethod = [_METHOD, f"rules {rules()['version']}"]
    codes = rules()["method_codes"]
    chosen = ["basic", *profile.options.names()]
    result.DeidentificationMethodCodeSequence = Sequence([_code(*codes[name]) for name in chosen])
    result.LongitudinalTemporalInformationModified = "MODIFIED" if profile.options.modified_dates else "REMOVED"
    if pixels is not None and pixels.looked:
        result.BurnedInAnnotation = "NO"


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _meta(result: Dataset, syntax: str) -> FileMetaDataset:
    """Write a new head (PS3.10 §7.1): nothing of the old one, its sender's AE titles and private parts, stays."""
    meta: Any = FileMetaDataset()
    meta.MediaStorageSOPClassUID = result.SOPClassUID
    meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    return meta
