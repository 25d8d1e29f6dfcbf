"""A stale postmaster.pid never makes us touch somebody else's process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
