"""C-STORE to an archive, with an answer for every instance. Stage 1 seen from the sender.

DICOM PS3.7 §9.1.1 (C-STORE), PS3.4 Annex B (status); TCP_NODELAY, or Nagle's algorithm slows the association tenfold.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, evt

from foramen.kernel.reactor_pause import rests_while_we_send

_MOST_CONTEXTS = 128
_TIMEOUT_S = 30.0
_STATUS_TEXT = {
    0xA700: "the archive is out of resources",
    0xA900: "the instance does not match its SOP class",
    0xC000: "the archive cannot understand the instance",
    0x0122: "the archive does not store this SOP class",
    0x0124: "the archive does not allow it",
}

_FOR_NOW = (_STATUS_TEXT[0xA700], "the association was broken off", "the archive did not answer")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one instance; `reason` is empty when it was stored.

    `again`: it failed by the way or for want of room, and may go another time.
    """

    sop_instance_uid: str
    reason: str = ""
    again: bool = False

    @property
    def stored(self) -> bool:
        """Whether the archive acknowledged it."""
        return not self.reason


def send_instances(
    datasets: Sequence[Dataset],
    host: str,
    port: int,
    called_aet: str,
    *,
    calling_aet: str = "FORAMEN-SCU",
    on_outcome: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """Send datasets (with file meta information) by C-STORE.

    Returns
    -------
    One outcome per dataset, in their order; a refused association or a broken one is the reason of all it concerns.
    """
    outcomes: list[Outcome] = []
    for batch in _batches(datasets):
        for outcome in _send_batch(batch, host, port, called_aet, calling_aet):
            on_outcome(outcome)
            outcomes.append(outcome)
    return outcomes


def _batches(datasets: Sequence[Dataset]) -> Iterator[list[Dataset]]:
    """Split where an association would need more presentation contexts than it may have (PS3.8 §9.3.2.2)."""
    batch: list[Dataset] = []
    contexts: set[tuple[str, str]] = set()
    for dataset in datasets:
        context = _context(dataset)
        if context not in contexts and len(contexts) == _MOST_CONTEXTS:
            yield batch
            batch, contexts = [], set()
        contexts.add(context)
        batch.append(dataset)
    if batch:
        yield batch


def _context(dataset: Dataset) -> tuple[str, str]:
    return str(dataset.SOPClassUID), str(dataset.file_meta.TransferSyntaxUID)


def _send_batch(batch: list[Dataset], host: str, port: int, called: str, calling: str) -> Iterable[Outcome]:
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _TIMEOUT_S
    entity.connection_timeout = 5.0
    for sop_class, syntax in dict.fromkeys(_context(dataset) for dataset in batch):
        entity.add_requested_context(sop_class, syntax)
    connected: list[bool] = []

    def opened(event: Any) -> None:
        connected.append(True)
        event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    association = entity.associate(host, port, ae_title=called, evt_handlers=[(evt.EVT_CONN_OPEN, opened)])
    if not association.is_established:
        reason = _refusal(association, f"{host}:{port}", connected=bool(connected))
        yield from (Outcome(str(item.SOPInstanceUID), reason, again="accepts none" not in reason) for item in batch)
        return
    rests_while_we_send(association)
    try:
        for dataset in batch:
            reason = _store(association, dataset)
            yield Outcome(str(dataset.SOPInstanceUID), reason, again=reason.startswith(_FOR_NOW))
    finally:
        if association.is_established:
            association.release()


def _refusal(association: Any, address: str, *, connected: bool) -> str:
    if not connected:
        return f"nobody answers at {address}"
    if association.is_rejected:
        return f"{address} rejected the association (AE title?)"
    return f"{address} accepts none of what is to be sent, or does not speak DICOM"


def _store(association: Any, dataset: Dataset) -> str:
    """Send one dataset. Returns the reason of failure, empty when it was acknowledged."""
    if not association.is_established:
        return "the association was broken off"
    try:
        status = association.send_c_store(dataset)
    except ValueError:
        return "the archive accepts neither this SOP class nor this transfer syntax, or the dataset cannot be encoded"
    except (RuntimeError, AttributeError):
        return "the association was broken off"
    if "Status" not in status:
        return "the archive did not answer"
    code = int(status.Status)
    # Success, or one of the warnings of PS3.4 Table B.2-1: stored, with coercion of or doubt about some elements.
    if code in (0x0000, 0xB000, 0xB006, 0xB007):
        return ""
    text = _STATUS_TEXT.get(code & 0xFF00 if code >> 12 in (0xA, 0xC) else code, "refused")
    return f"{text} (status {code:04X}H)"
