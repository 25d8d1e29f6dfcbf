"""A taken port is said plainly, with who holds it."""

from __future__ import annotations

import os
import socket

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


def test_a_free_port_is_free() -> None:
    assert is_free("127.0.0.1", free_port())
