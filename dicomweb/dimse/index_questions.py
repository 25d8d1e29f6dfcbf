"""What a thread that stores an instance asks of the study index, of the database itself.

To ask through the event loop costs several times what the questions do, and they are asked for every instance. While
the database answers, the thread looks at the instance: so the question is sent first, by libpq's own functions.
https://www.psycopg.org/psycopg3/docs/api/pq.html, https://www.postgresql.org/docs/current/libpq-async.html
"""

from __future__ import annotations

import contextlib
import queue
import select
from typing import Any

import psycopg
from psycopg.pq import ExecStatus

from foramen.kernel.errors import UpstreamError

_FATE = b"""SELECT EXISTS (SELECT FROM dicomweb.rejected_instance WHERE sop_instance_uid = $1),
    EXISTS (SELECT FROM dicomweb.instance WHERE sop_instance_uid = $1)"""
_NAME = b"fate"
_COUNT = """SELECT (SELECT count(*) FROM dicomweb.instance)
    + (SELECT count(*) FROM dicomweb.rejected_instance WHERE orthanc_id IS NOT NULL)"""
_CONNECT_S = 3
_ANSWER_MS = 30_000
_MOST_IDLE = 8
Connection = psycopg.Connection[Any]


class IndexQuestions:
    """Connections to the database, each lent to one thread at a time."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue(_MOST_IDLE)

    def ask_fate(self, sop_instance_uid: str) -> Fate:
        """Ask what became of an instance; the answer is to be taken, or dropped.

        Raises
        ------
        UpstreamError
            The database does not answer.
        """
        uid = sop_instance_uid.encode()
        with contextlib.suppress(queue.Empty, psycopg.OperationalError):  # the server may have ended it meanwhile
            return self._sent(self._idle.get_nowait(), uid)
        try:
            return self._sent(self.connect(), uid)
        except psycopg.OperationalError as exc:
            raise UpstreamError("The database does not answer") from exc

    def count(self) -> int:
        """How many instances the archive holds as far as the index knows, the rejected ones with them.

        Raises
        ------
        UpstreamError
            The database does not answer.
        """
        try:
            with self.connect() as connection:
                row = connection.execute(_COUNT).fetchone()
        except psycopg.OperationalError as exc:
            raise UpstreamError("The database does not answer") from exc
        return int(row[0]) if row is not None else 0

    def close(self) -> None:
        """Close what is idle."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def connect(self) -> Connection:
        """Return a new connection that knows the question.

        Raises
        ------
        psycopg.OperationalError
            The database does not answer.
        """
        connection = psycopg.connect(self._url, autocommit=True, connect_timeout=_CONNECT_S)
        if connection.pgconn.prepare(_NAME, _FATE).status != ExecStatus.COMMAND_OK:
            connection.close()
            raise psycopg.OperationalError("The question is not understood")
        return connection

    def keep(self, connection: Connection) -> None:
        """Take back a connection that waits for nothing."""
        try:
            self._idle.put_nowait(connection)
        except queue.Full:
            connection.close()

    def _sent(self, connection: Connection, uid: bytes) -> Fate:
        fate = Fate(self, connection, uid)
        fate.send()
        return fate


class Fate:
    """A question under way, whether an instance was rejected or is indexed. Used by one thread."""

    def __init__(self, questions: IndexQuestions, connection: Connection, uid: bytes) -> None:
        self._questions, self._connection, self._uid = questions, connection, uid
        self._is_open = False

    def send(self) -> None:
        """Ask.

        Raises
        ------
        psycopg.OperationalError
            The connection is of no use any more; it is closed.
        """
        self._is_open = True
        try:
            self._connection.pgconn.send_query_prepared(_NAME, [self._uid])
            while self._connection.pgconn.flush():
                self._wait(select.POLLOUT)
        except psycopg.OperationalError:
            self.drop()
            raise

    def answer(self) -> tuple[bool, bool]:
        """Whether it was rejected, for whatever reason (IHE RAD TF-2 §4.66), and whether it is indexed.

        Raises
        ------
        UpstreamError
            The database does not answer.
        """
        try:
            return self._received()
        except psycopg.OperationalError:  # an idle connection may have been ended by the server: once more, anew
            self.drop()
        try:
            self._connection = self._questions.connect()
            self.send()
            return self._received()
        except psycopg.OperationalError as exc:
            self.drop()
            raise UpstreamError("The database does not answer") from exc

    def drop(self) -> None:
        """Do without an answer; may be called again, and after `answer`."""
        if self._is_open:
            self._is_open = False
            self._connection.close()  # what is still to come would be taken for the next answer

    def _received(self) -> tuple[bool, bool]:
        first, rest = self._next(), self._next()
        if first is None or rest is not None or first.status != ExecStatus.TUPLES_OK:
            raise psycopg.OperationalError("No answer to the question")
        self._is_open = False
        self._questions.keep(self._connection)
        return first.get_value(0, 0) == b"t", first.get_value(0, 1) == b"t"

    def _next(self) -> psycopg.pq.abc.PGresult | None:
        while self._connection.pgconn.is_busy():
            self._wait(select.POLLIN)
            self._connection.pgconn.consume_input()
        return self._connection.pgconn.get_result()

    def _wait(self, event: int) -> None:
        waiting = select.poll()
        waiting.register(self._connection.pgconn.socket, event)
        if not waiting.poll(_ANSWER_MS):
            raise psycopg.OperationalError("The database is silent")
