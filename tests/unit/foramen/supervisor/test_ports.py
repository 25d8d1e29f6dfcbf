"""A taken port is said plainly, with who holds it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from foramen.kernel.errors import ConflictError
from foramen.supervisor.ports import free_port, is_free, require_free


def test_a_taken_port_names_its_holder_and_the_way_out() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        with pytest.raises(ConflictError, match=rf"Port {port} \(web\) is taken by .*{os.getpid()}.*--port"):
            require_free("127.0.0.1", port, "web", "--port")


def test_a_free_port_is_free_and_stays_so_whoever_connects_meanwhile() -> None:
    """A server that started on a port from the system's own range found an outgoing connection there."""
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    outgoing = range(*map(int, given.read_text().split())) if given.exists() else range(49152, 65536)
    for _ in range(20):
        port = free_port()
        assert is_free("127.0.0.1", port)
        assert port not in outgoing
