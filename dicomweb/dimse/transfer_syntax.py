"""Bring an instance into a transfer syntax that the other side accepted. DICOM PS3.5 §8, Annex A; PS3.8 §9.3.2.2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext

_PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
MOST_CONTEXTS = 128


class NoTransferSyntaxError(Exception):
    """The other side accepted none in which this instance can be sent."""


def fitted(dataset: Dataset, accepted: Iterable[PresentationContext]) -> Dataset:
    """Return the dataset as it can be sent: as it is stored if that was accepted, else decompressed.

    Raises
    ------
    NoTransferSyntaxError
        Neither was accepted, or it cannot be decompressed.
    """
    stored = dataset.file_meta.TransferSyntaxUID
    syntaxes = {
        UID(str(context.transfer_syntax[0]))
        for context in accepted
        if context.abstract_syntax == dataset.SOPClassUID and context.as_scu
    }
    if stored in syntaxes:
        return dataset
    if not syntaxes.intersection(_PLAIN):
        raise NoTransferSyntaxError
    if stored.is_compressed:
        if "PixelData" not in dataset:
            raise NoTransferSyntaxError
        try:
            dataset.decompress(generate_instance_uid=False)
        except Exception as exc:
            raise NoTransferSyntaxError from exc
    return dataset


def proposed(instances: Iterable[tuple[str, str]]) -> list[PresentationContext]:
    """Contexts to propose for (SOP class, stored transfer syntax): as it is stored, and uncompressed."""
    contexts: list[PresentationContext] = []
    wanted: dict[str, set[str]] = {}
    for sop_class, syntax in instances:
        wanted.setdefault(sop_class, set()).add(syntax)
    for sop_class, syntaxes in sorted(wanted.items()):
        contexts += [build_context(sop_class, syntax) for syntax in sorted(syntaxes - {str(uid) for uid in _PLAIN})]
        contexts.append(build_context(sop_class, list(_PLAIN)))
    return contexts[:MOST_CONTEXTS]


def plain_syntaxes() -> Sequence[UID]:
    """Explicit and implicit VR little endian."""
    return _PLAIN
