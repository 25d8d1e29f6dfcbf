"""A stale postmaster.pid never makes us touch somebody else's process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import psycopg

from foramen.kernel.embedded_postgres import postgres_pid, stop_postgres


def test_a_stale_pid_file_names_nobody(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        (tmp_path / "postmaster.pid").write_text(f"{stranger.pid}\n{tmp_path}\n")
        assert postgres_pid(tmp_path) is None
        stop_postgres(tmp_path)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_broken_pid_file_names_nobody(tmp_path: Path) -> None:
    (tmp_path / "postmaster.pid").write_text("not a number\n")
    assert postgres_pid(tmp_path) is None


def test_the_running_server_is_found(postgres_url: str) -> None:
    folder = Path(postgres_url.split("host=")[1])
    assert postgres_pid(folder) is not None


def test_a_new_server_keeps_an_eighth_of_the_memory_for_pages(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        row = connection.execute("SELECT pg_size_bytes(current_setting('shared_buffers'))").fetchone()
    assert row is not None
    expected = max(128 << 20, min(psutil.virtual_memory().total // 8, 4 << 30))
    assert abs(row[0] - expected) < 2 << 20
