"""The listening side: who may connect, TLS outside the accept loop, bounded PDUs, and our own association.

DICOM PS3.8 §9. pynetdicom 3 wraps TLS where it accepts (a silent peer would stop all others) and reads as many bytes
as a PDU says it has (up to 4 GiB); both are mended here.
"""

from __future__ import annotations

import itertools
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

from pynetdicom import evt
from pynetdicom.association import MODE_ACCEPTOR, Association
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from foramen.kernel.log import get_log

_HANDSHAKE_S = 10.0
_LARGEST_PDU_BYTES = 1024 * 1024
_READ_BYTES = 256 * 1024


class BoundedSocket(AssociationSocket):  # type: ignore[misc]
    """Reads in large pieces, and never more than a PDU may have."""

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
        view, done = memoryview(data), 0
        while done < nr_bytes:
            count = connection.recv_into(view[done : done + _READ_BYTES])
            if not count:
                break
            done += count
        view.release()
        del data[done:]
        return data


class ServedAssociation(Association):  # type: ignore[misc]
    """An acceptor that gives C-GET and C-MOVE to `Operation`, not to pynetdicom's own service class."""

    retrieve: Callable[[Any, Any, Any], None] | None = None

    def _serve_request(self, msg: Any, context_id: int) -> None:
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


class Handler(RequestHandler):  # type: ignore[misc]
    """Makes our own association and socket for each connection."""

    def _create_association(self) -> Association:
        """As pynetdicom does, but with our classes, and without a copy of a thousand contexts for each caller."""
        server = cast(Server, self.server)
        made = ServedAssociation(self.ae, MODE_ACCEPTOR)
        made._server = server
        made.name = f"AcceptorThread@{next(_NUMBERS)}"  # pynetdicom counts associations by this beginning
        made.retrieve = server.retrieve
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
    """A server with bounds; set `retrieve`, `tls` and `most` before it serves."""

    daemon_threads = True
    request_queue_size = 64
    retrieve: Callable[[Any, Any, Any], None] | None = None
    tls: ssl.SSLContext | None = None
    most = 64
    idle_s = 60.0

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
