"""Waiting for what comes, instead of looking for it: pynetdicom's two threads of an association without their pauses.

Its upper layer and its reactor sleep a millisecond and look again, each: an instance waits three times, and an idle
association costs CPU. Here both sleep until the socket, the other thread or a timer has something. And a C-STORE, which
comes by the thousand, is served where it is read: its fragments go from the socket to the file as they are, no other
thread is woken. All other messages take pynetdicom's way. DICOM PS3.8 §9.2 (state machine), Annex E (fragments).
"""

from __future__ import annotations

import os
import queue
import select
import ssl
import threading
from typing import Any

from pynetdicom.dul import DULServiceProvider

from dicomweb.dimse import status
from dicomweb.dimse.contexts import STORAGE_CLASSES
from dicomweb.dimse.passing_on import PAUSE_MS
from dicomweb.dimse.received_file import ReceivedFile
from dicomweb.dimse.store_request import (
    COMMAND,
    LAST,
    P_DATA,
    Fragment,
    StoreRequest,
    answer_to,
    file_head,
    fragments_of,
    request_of,
)
from foramen.kernel.log import get_log

_LOOK_MS = 100
"""The longest wait: timers are looked at this often."""
_HEAD_BYTES = 6
_STORAGE = frozenset(STORAGE_CLASSES)


class _EndedError(Exception):
    """No data set any more: the connection or the association ends."""


class WakingQueue(queue.Queue[Any]):
    """What the upper layer tells the association; wakes the reactor, which waits for messages."""

    def __init__(self, messages: queue.Queue[Any]) -> None:
        super().__init__()
        self._messages = messages

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put, and let whoever waits for a message look here."""
        super().put(item, block, timeout)
        self._messages.put((None, None))


class UpperLayer(DULServiceProvider):  # type: ignore[misc]
    """pynetdicom's upper layer, which waits on the socket and on what it is to send."""

    def __init__(self, association: Any) -> None:
        super().__init__(association)
        self.is_storing = False
        """Whether a C-STORE is being served: then the association is not idle, however long that takes."""
        self._run_loop_delay = 0
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ringing = threading.Lock()
        """Held while the bell is rung or taken down: its number may belong to another file right after."""
        self.to_user_queue = WakingQueue(association.dimse.msg_queue)

    def send_pdu(self, primitive: Any) -> None:
        """Have something sent, now."""
        super().send_pdu(primitive)
        self._ring()

    def kill_dul(self) -> None:
        """End, now."""
        super().kill_dul()
        self._ring()

    def stop_dul(self) -> bool:
        """End if the connection is over, now."""
        if self.state_machine.current_state == "Sta1":
            self._kill_thread = True
            self._ring()
        return bool(super().stop_dul())

    def run_reactor(self) -> None:
        """Run until the association ends."""
        try:
            super().run_reactor()
        finally:
            with self._ringing:
                os.close(self._wake)
                self._wake = -1

    def _ring(self) -> None:
        with self._ringing:
            if self._wake >= 0:  # else it has ended
                os.eventfd_write(self._wake, 1)

    def _is_transport_event(self) -> bool:
        if self.socket is None or self.socket.socket is None or self.state_machine.current_state == "Sta13":
            return bool(super()._is_transport_event())
        if not self._is_something_there(self.socket.socket):
            return False
        if not self._serve_store():
            self._read_pdu_data()
        return True

    def _is_something_there(self, connection: Any) -> bool:
        """Wait for the peer; shortly where there is other work."""
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            return True
        number = connection.fileno()
        if number < 0:
            self.event_queue.put("Evt17")
            return False
        waiting = select.poll()
        waiting.register(number, select.POLLIN)
        waiting.register(self._wake, select.POLLIN)
        ready = {one for one, _ in waiting.poll(0 if not self.event_queue.empty() else _LOOK_MS)}
        if self._wake in ready:
            os.eventfd_read(self._wake)
        return number in ready

    def _serve_store(self) -> bool:
        """Serve a C-STORE from its request to its answer; anything else is left as it is."""
        association = self.assoc
        if association.store is None or association.is_serving or association.dimse.message is not None:
            return False
        if self.state_machine.current_state != "Sta6":
            return False
        try:
            head, body = self._read_pdu()
            begun = _begin(body) if head[0] == P_DATA else None
            context = association._accepted_cx.get(begun[0].context_id) if begun else None
            if begun is None or context is None:
                self.socket.give_back(head + body)
                return False
            self.is_storing = True
            self._store(*begun, str(context.transfer_syntax[0]), memoryview(body))
        except OSError:
            self.event_queue.put("Evt17")
        except ValueError:
            self.event_queue.put("Evt19")
        except _EndedError:
            pass
        finally:
            self._idle_timer.restart()  # before it counts as idle again
            self.is_storing = False
        return True

    def _store(self, request: StoreRequest, rest: list[Fragment], syntax: str, body: memoryview) -> None:
        """Receive the data set, have it stored, and answer."""
        received = ReceivedFile()
        try:
            if self.assoc.begin is not None:
                received.passing_on = self.assoc.begin(self.assoc, request.sop_class_uid, request.sop_instance_uid)
            received.write(file_head(request, syntax))
            self._receive(request, rest, body, received)
            code = self.assoc.store(self.assoc, received, request.sop_class_uid, request.sop_instance_uid)
        except (OSError, ValueError, _EndedError):
            raise
        except Exception:  # noqa: BLE001  the edge of a thread
            get_log().exception("an instance was not stored", part="dimse")
            code = status.PROCESSING_FAILURE
        finally:
            received.discard()
        if self.assoc.is_established and self.socket.socket is not None:
            self.socket.send(answer_to(request, code))

    def _receive(self, request: StoreRequest, rest: list[Fragment], body: memoryview, received: ReceivedFile) -> None:
        """Receive a data set up to its last fragment.

        Raises
        ------
        ValueError
            Fragments of something else are among it.
        OSError
            The connection ended, or the peer is too slow.
        _EndedError
            The association is ended instead, or more came than an instance may have.
        """
        size, fragments = 0, rest
        while True:
            for number, one in enumerate(fragments, start=1):
                if one.context_id != request.context_id or one.control & COMMAND:
                    raise ValueError("A fragment of another message")
                received.write(body[one.start : one.end])
                if one.control & LAST:
                    if number < len(fragments):
                        raise ValueError("Something follows the last fragment")
                    return
            if received.passing_on is not None and received.passing_on.is_under_way and not self._comes_soon():
                received.passing_on.break_off()
            head, content = self._read_pdu()
            size += len(content)
            if size > self.assoc.most_bytes:
                get_log().warning("an association sent too much", part="dimse")
                self.socket.close()
                raise _EndedError
            if head[0] != P_DATA:
                self.socket.give_back(head + content)
                raise _EndedError
            self._idle_timer.restart()
            body = memoryview(content)
            fragments = list(fragments_of(body))

    def _comes_soon(self) -> bool:
        """Whether the sender makes no pause."""
        connection = self.socket.socket
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            return True
        waiting = select.poll()
        waiting.register(connection.fileno(), select.POLLIN)
        return bool(waiting.poll(PAUSE_MS))

    def _read_pdu(self) -> tuple[bytearray, bytearray]:
        """Read a PDU: its type and length, and the rest.

        Raises
        ------
        OSError
            The connection ended, or the peer is too slow, or the PDU too long.
        """
        head = self.socket.recv(_HEAD_BYTES)
        if len(head) < _HEAD_BYTES:
            raise OSError("The connection ended")
        length = int.from_bytes(head[2:], "big")
        body = self.socket.recv(length)
        if len(body) < length:
            raise OSError("The connection ended")
        return head, body


def _begin(body: bytearray) -> tuple[StoreRequest, list[Fragment]] | None:
    """Return the C-STORE request that a PDU begins with, and what of its data set is there already."""
    try:
        first, *rest = fragments_of(memoryview(body))
    except ValueError:
        return None
    request = request_of(first, memoryview(body))
    return (request, rest) if request is not None and request.sop_class_uid in _STORAGE else None


def next_message(association: Any) -> tuple[Any, Any]:
    """Wait for a message, or for something else to look at; then it is (None, None)."""
    try:
        found: tuple[Any, Any] = association.dimse.msg_queue.get(timeout=_LOOK_MS / 1000)
    except queue.Empty:
        return None, None
    return found
