"""An instance that is passed on to the archive while it still arrives.

What decides about an instance stands before its pixel data, and the length of these says how long it will be. So it is
looked at, admitted and on its way while the rest comes; that waits for nobody. What was received stays in memory until
it is answered: wherever it is not as its beginning said, or the sender pauses, the way to the archive is broken off,
which leaves nothing there (a body shorter than announced is no request, RFC 9112 §6.3), and it is stored once it is
whole, as every other instance is. PS3.5 §7.1, PS3.4 §B.2.3.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from dicomweb.archive_writer import ArchiveAnswerError, ArchiveWriter, Transfer
from dicomweb.instance_header import InstanceHeader
from dicomweb.store.inspect import HEAD_BYTES
from dicomweb.store.raw_elements import announced_size
from dicomweb.store.report import Remark

LARGEST_BYTES = 1024 * 1024
"""Larger instances become files while they are received; they are sent from there."""
_LONGEST_S = 2.0
"""How long an instance may be under way: each holds a thread of the archive and keeps others of its name waiting."""
PAUSE_MS = 50
"""How long the sender may pause in between."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """What was found at the beginning of an instance; `lock` is held until it is stored or broken off."""

    header: InstanceHeader
    remark: Remark | None
    lock: threading.Lock


Admit = Callable[[bytes, int], Admitted | None]
"""Decides by the beginning of a file and the bytes that it will have; None: not before it is whole."""


class PassingOn:
    """One instance on its way. Used by the thread that receives it; raises nothing.

    Any refusal and any fault is told by the way that every instance can take once it is whole.
    """

    def __init__(self, writer: ArchiveWriter, admit: Admit) -> None:
        self._writer, self._admit = writer, admit
        self._pieces: list[bytes | memoryview] = []
        self._admitted: Admitted | None = None
        self._transfer: Transfer | None = None
        self._last: bytes | memoryview = b""
        self._is_over = False
        self._size = self._received = 0
        self._until = 0.0

    @property
    def is_under_way(self) -> bool:
        """Whether a pause of the sender would be a burden to others."""
        return self._transfer is not None

    def take(self, piece: bytes | memoryview) -> None:
        """Take the next bytes that were received."""
        if self._is_over:
            return
        self._received += len(piece)
        try:
            if self._transfer is None:
                self._pieces.append(piece)
                self._set_out()
            elif self._received > self._size or time.monotonic() > self._until:
                self.break_off()
            elif self._received == self._size:
                self._last = piece  # kept back: with it the archive would have all that was announced, and store it
            else:
                self._transfer.send(piece)
        except Exception:  # noqa: BLE001  see above
            self.break_off()

    def _set_out(self) -> None:
        head = b"".join(self._pieces)[:HEAD_BYTES]
        size = announced_size(head)
        if size is None:
            self._is_over = len(head) >= HEAD_BYTES
            return
        admitted = self._admit(head, size) if self._received < size <= LARGEST_BYTES else None
        if admitted is None:
            self.break_off()
            return
        self._admitted, self._size, self._until = admitted, size, time.monotonic() + _LONGEST_S
        self._transfer = self._writer.begin(size)
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            self._transfer.send(piece)

    def arrived(self, noted: Callable[[str, str], None]) -> tuple[Admitted, str] | None:
        """Return what the archive acknowledged: who it is, and its Orthanc id; None: it has to be stored still.

        Parameters
        ----------
        noted : told the Orthanc id and the SOP Instance UID before others of its name may go on
        """
        transfer, admitted = self._transfer, self._admitted
        if transfer is None or admitted is None or self._received != self._size:
            self.break_off()
            return None
        self._transfer = None
        try:
            transfer.send(self._last)
            acknowledged = transfer.finish()
            if acknowledged is None or acknowledged[1] != "Success":
                return None
            noted(acknowledged[0], admitted.header.sop_instance_uid)
            return admitted, acknowledged[0]
        except OSError:
            transfer.abandon()
            return None
        except ArchiveAnswerError:
            return None
        finally:
            self.break_off()

    def break_off(self) -> None:
        """End it, wherever it is; may be called again."""
        self._is_over, self._pieces, self._last = True, [], b""
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            transfer.abandon()
        admitted, self._admitted = self._admitted, None
        if admitted is not None:
            admitted.lock.release()
