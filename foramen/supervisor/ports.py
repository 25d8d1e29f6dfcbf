"""Is a port free, and if not, who holds it? Said in words before anything is started."""

from __future__ import annotations

import random
import socket

import psutil

from foramen.kernel.errors import ConflictError

_NOT_OUTGOING = range(20_000, 32_768)
_CHOICE = random.SystemRandom()
"""Not the generator that tests seed: processes that start together would choose alike."""


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens on the port (a listener on all addresses counts for every host)."""
    for address in {host, "127.0.0.1"} - {"0.0.0.0"}:  # noqa: S104  the wildcard is what we look past
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.settimeout(0.5)
            if probe.connect_ex((address, port)) == 0:
                return False
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """Name the process that listens on a port, as far as we may see it."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == port
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        pass
    return "another program"


def require_free(host: str, port: int, purpose: str, setting: str) -> None:
    """Refuse in words when a port is taken.

    Raises
    ------
    ConflictError
        Somebody listens there; names the holder and the setting that chooses another port.
    """
    if not is_free(host, port):
        raise ConflictError(f"Port {port} ({purpose}) is taken by {holder(port)}. Choose another with {setting}.")


def free_port() -> int:
    """Return a port that is free now and that no outgoing connection gets before somebody listens there.

    The system gives those from 32768 (Linux) or 49152 on (RFC 6335 §6): a port of theirs may be taken in the seconds
    until a server of ours has started.
    """
    while True:
        port = _CHOICE.choice(_NOT_OUTGOING)
        if is_free("127.0.0.1", port):
            return port
