"""Call another AE: C-MOVE's destination, forwarding, prefetching, commitment reports. DICOM PS3.8 §7."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.presentation import PresentationContext

from dicomweb.dimse.application_entity import ApplicationEntity
from dicomweb.dimse.tls import client_context, fingerprint
from foramen.kernel.reactor_pause import rests_while_we_send
from foramen.kernel.settings import Settings

MAX_PDU_BYTES = 256 * 1024
"""16 KiB, the default, costs a round of two threads for each; dcmtk takes 128 KiB, others what they say."""


def no_delay(event: Any) -> None:
    """Send small packets at once: with Nagle's algorithm an instance takes 40 ms longer."""
    connection = event.assoc.dul.socket.socket
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@contextlib.contextmanager
def associated(
    settings: Settings,
    peer: ApplicationEntity,
    contexts: Sequence[PresentationContext],
    *,
    roles: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
) -> Iterator[Any]:
    """Associate with a peer for a while; gives None when it cannot be reached, refuses, or is not who it should be.

    Parameters
    ----------
    roles : SCP/SCU role selection items (`pynetdicom.build_role`)
    """
    caller = AE(ae_title=settings.dimse_aet)
    caller.acse_timeout = settings.dimse_connect_timeout_s
    caller.connection_timeout = settings.dimse_connect_timeout_s
    caller.dimse_timeout = settings.dimse_idle_timeout_s
    caller.network_timeout = settings.dimse_idle_timeout_s
    caller.maximum_pdu_size = MAX_PDU_BYTES
    address = peer.address
    if address is None or not contexts:
        yield None
        return
    tls = (client_context(settings), peer.host or "") if peer.use_tls else None
    association = caller.associate(
        *address,
        contexts=list(contexts),
        ae_title=peer.ae_title,
        max_pdu=MAX_PDU_BYTES,
        ext_neg=list(roles),
        tls_args=tls,
        evt_handlers=[(evt.EVT_CONN_OPEN, no_delay), *handlers],
    )
    rests_while_we_send(association)
    try:
        if association.is_established and not _is_peer(association, peer):
            association.abort()
        yield association if association.is_established else None
    finally:
        if association.is_established:
            association.release()
        elif association.dul.socket is not None:
            association.dul.socket.close()


def _is_peer(association: Any, peer: ApplicationEntity) -> bool:
    return peer.tls_fingerprint is None or fingerprint(association.dul.socket.socket) == peer.tls_fingerprint
