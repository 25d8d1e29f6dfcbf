"""What a thread that stores an instance asks of the study index, of the database itself.

To ask through the event loop costs several times what the questions do, and they are asked for every instance.
"""

from __future__ import annotations

import contextlib
import queue
from typing import Any

import psycopg

from foramen.kernel.errors import UpstreamError

_FATE = """SELECT EXISTS (SELECT FROM dicomweb.rejected_instance WHERE sop_instance_uid = %(uid)s),
    EXISTS (SELECT FROM dicomweb.instance WHERE sop_instance_uid = %(uid)s)"""
_COUNT = """SELECT (SELECT count(*) FROM dicomweb.instance)
    + (SELECT count(*) FROM dicomweb.rejected_instance WHERE orthanc_id IS NOT NULL)"""
_CONNECT_S = 3
_MOST_IDLE = 8


class IndexQuestions:
    """Connections to the database, each lent to one thread at a time."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._idle: queue.LifoQueue[psycopg.Connection[Any]] = queue.LifoQueue(_MOST_IDLE)

    def fate(self, sop_instance_uid: str) -> tuple[bool, bool]:
        """Whether an instance was rejected, for whatever reason (IHE RAD TF-2 §4.66), and whether it is indexed.

        Raises
        ------
        UpstreamError
            The database does not answer.
        """
        rejected, indexed = self._row(_FATE, {"uid": sop_instance_uid})
        return bool(rejected), bool(indexed)

    def count(self) -> int:
        """How many instances the archive holds as far as the index knows, the rejected ones with them.

        Raises
        ------
        UpstreamError
            The database does not answer.
        """
        return int(self._row(_COUNT, {})[0])

    def close(self) -> None:
        """Close what is idle."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _row(self, question: str, values: dict[str, str]) -> tuple[Any, ...]:
        with contextlib.suppress(queue.Empty, psycopg.OperationalError):  # the server may have ended it meanwhile
            return self._ask(self._idle.get_nowait(), question, values)
        try:
            connection = psycopg.connect(self._url, autocommit=True, prepare_threshold=0, connect_timeout=_CONNECT_S)
            return self._ask(connection, question, values)
        except psycopg.OperationalError as exc:
            raise UpstreamError("The database does not answer") from exc

    def _ask(self, connection: psycopg.Connection[Any], question: str, values: dict[str, str]) -> tuple[Any, ...]:
        try:
            row: tuple[Any, ...] = connection.execute(question, values).fetchone() or ()
        except BaseException:
            connection.close()
            raise
        try:
            self._idle.put_nowait(connection)
        except queue.Full:
            connection.close()
        return row
