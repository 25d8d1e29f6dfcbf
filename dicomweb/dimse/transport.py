"""The listening side: who may connect, TLS outside the accept loop, bounded PDUs, and our own association.

DICOM PS3.8 §9. pynetdicom 3 wraps TLS where it accepts (a silent peer would stop all others) and reads as many bytes
as a PDU says it has (up to 4 GiB); both are mended here.
"""

from __future__ import annotations

import itertools
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, cast

from pynetdicom import evt
from pynetdicom.association import MODE_ACCEPTOR, Association
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from dicomweb.dimse.passing_on import PassingOn
from dicomweb.dimse.received_file import ReceivedFile
from dicomweb.dimse.upper_layer import UpperLayer, next_message
from foramen.kernel.log import get_log

_HANDSHAKE_S = 10.0
_LARGEST_PDU_BYTES = 1024 * 1024
_READ_BYTES = 256 * 1024
_SLOWEST_BYTES_PER_S = 4096
"""A peer that sends less holds an association with a drip of bytes."""
Store = Callable[[Any, ReceivedFile, str, str], int]
"""Stores what an association received, under SOP class and SOP instance UID; returns the status to answer."""
Begin = Callable[[Any, str, str], PassingOn | None]
"""Returns what takes an instance on while it is received, under SOP class and SOP instance UID; None: nothing does."""


class BoundedSocket(AssociationSocket):  # type: ignore[misc]
    """Reads in large pieces, and never more than a PDU may have."""

    _given_back = b""

    def give_back(self, data: bytearray) -> None:
        """Let the next reads begin with what was read already."""
        self._given_back = bytes(data)

    def recv(self, nr_bytes: int) -> bytearray:
        """Read `nr_bytes`, fewer when the connection ends.

        Raises
        ------
        OSError
            The peer is too slow, or announces more than any PDU of ours may have.
        """
        if nr_bytes > _LARGEST_PDU_BYTES:
            raise OSError("A PDU is longer than announced as acceptable")
        connection = cast(socket.socket, self.socket)
        data = bytearray(nr_bytes)
        done = min(len(self._given_back), nr_bytes)
        data[:done], self._given_back = self._given_back[:done], self._given_back[done:]
        view = memoryview(data)
        longest_s = (connection.gettimeout() or 0.0) + nr_bytes / _SLOWEST_BYTES_PER_S
        until = time.monotonic() + longest_s
        while done < nr_bytes:
            count = connection.recv_into(view[done : done + _READ_BYTES])
            if not count:
                break
            done += count
            if done < nr_bytes and time.monotonic() > until:
                raise OSError("The peer is too slow")
        view.release()
        del data[done:]
        return data


class ServedAssociation(Association):  # type: ignore[misc]
    """An acceptor that gives C-GET and C-MOVE to `Operation`, not to pynetdicom's own service class."""

    is_established: bool
    retrieve: Callable[[Any, Any, Any], None] | None = None
    store: Store | None = None
    begin: Begin | None = None
    most_bytes = 0
    is_serving = False
    """Whether a message is being answered in the association's own thread."""

    def _serve_request(self, msg: Any, context_id: int) -> None:
        self.is_serving = True
        try:
            self._serve(msg, context_id)
        finally:
            self.is_serving = False

    def _serve(self, msg: Any, context_id: int) -> None:
        context = self._accepted_cx.get(context_id)
        if self.retrieve is None or context is None or not isinstance(msg, C_GET | C_MOVE) or self._sent_release:
            super()._serve_request(msg, context_id)
            return
        self.dimse.cancel_req = {}
        self._is_paused = True
        try:
            self.retrieve(self, msg, context)
        except Exception:  # noqa: BLE001  the edge of a thread
            get_log().exception("a retrieval failed", part="dimse")
            self.abort()
        finally:
            self._is_paused = False
            self.dimse.cancel_req = {}

    def _run_reactor(self) -> None:
        """As pynetdicom's, but it waits for a message instead of looking for one a thousand times a second."""
        while not self._kill:
            self._is_paused = True
            self._reactor_checkpoint.wait()
            self._is_paused = False
            context_id, message = next_message(self)
            if message is not None:
                self._serve_request(message, context_id)
            if self.is_established and self.acse.is_release_requested():
                self.acse.send_release(is_response=True)
                self.is_released, self.is_established = True, False
                evt.trigger(self, evt.EVT_RELEASED, {})
                self.kill()
            elif self.acse.is_aborted():
                self.dul.receive_pdu(wait=False)
                self.is_aborted, self.is_established = True, False
                evt.trigger(self, evt.EVT_ABORTED, {})
                self.kill()
            elif not self.dul.is_alive():
                self.kill()
            elif self.dul.idle_timer_expired() and not self.dul.is_storing:
                self.abort()
                self.kill()


class Handler(RequestHandler):  # type: ignore[misc]
    """Makes our own association and socket for each connection."""

    def _create_association(self) -> Association:
        """As pynetdicom does, but with our classes, and without a copy of a thousand contexts for each caller."""
        server = cast(Server, self.server)
        made = ServedAssociation(self.ae, MODE_ACCEPTOR)
        made._server = server
        made.name = f"AcceptorThread@{next(_NUMBERS)}"  # pynetdicom counts associations by this beginning
        made.retrieve, made.store, made.most_bytes = server.retrieve, server.store, server.most_bytes
        made.begin = server.begin
        made.dul = UpperLayer(made)
        made.acse_timeout, made.network_timeout = self.ae.acse_timeout, self.ae.network_timeout  # its timers
        made.set_socket(BoundedSocket(made, client_socket=self.request))
        made.acceptor.maximum_length = self.ae.maximum_pdu_size
        made.acceptor.ae_title = server.ae_title
        made.acceptor.address_info = self.local
        made.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        made.acceptor.implementation_version_name = self.ae.implementation_version_name
        made.requestor.address_info = self.remote
        for event, handlers in server._handlers.items():
            if isinstance(event, evt.NotificationEvent):
                for handler, arguments in cast(list[Any], handlers):
                    made.bind(event, handler, arguments)
            elif handlers:
                made.bind(event, *cast(Any, handlers))
        return made


_NUMBERS = itertools.count(1)


class Server(ThreadedAssociationServer):  # type: ignore[misc]
    """A server with bounds; set `retrieve`, `store`, `begin`, `tls`, `most` and `most_bytes` before it serves."""

    daemon_threads = True
    request_queue_size = 64
    retrieve: Callable[[Any, Any, Any], None] | None = None
    store: Store | None = None
    begin: Begin | None = None
    most_bytes = 0
    tls: ssl.SSLContext | None = None
    most = 64
    idle_s = 60.0

    def service_actions(self) -> None:
        """Nothing: pynetdicom collects all garbage here every few seconds, which costs more than what is there."""

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse connections beyond twice the associations that may be: each has two threads at once."""
        return len(self.active_associations) < 2 * self.most

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Prepare the connection, then let pynetdicom serve it."""
        try:
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request.settimeout(_HANDSHAKE_S)
            if self.tls is not None:
                request = self.tls.wrap_socket(request, server_side=True)
            request.settimeout(self.idle_s)
        except (OSError, ssl.SSLError):
            self.shutdown_request(request)
            return
        super().process_request_thread(request, client_address)
