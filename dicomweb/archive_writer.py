"""The way instances take into Orthanc: plain HTTP/1.1 on connections that stay open, from the calling thread.

An instance is one request with one body of known length and a short answer. The client that asks everything else of
Orthanc spends more time on it than Orthanc does; that of the standard library reads the few lines of an answer with
the parser for mail. Here it is two writes and a read, with TCP_NODELAY and without the interpreter's lock.
https://orthanc.uclouvain.be/book/users/rest.html, RFC 9112
"""

from __future__ import annotations

import base64
import contextlib
import queue
import re
import select
import socket
import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

_CONNECT_S = 3.0
_ANSWER_S = 60.0
_MOST_HEADER_BYTES = 16 * 1024
_MOST_ANSWER_BYTES = 16 * 1024 * 1024
_READ_BYTES = 64 * 1024
_FOUND_AT_ONCE = 200
"""UIDs asked for in one request; Orthanc's index takes fewer than 1,000 values in one statement."""
_CHANGES_AT_ONCE = 1000
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,12})[ \t]*\r\n", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)


class ArchiveAnswerError(Exception):
    """Orthanc did not answer, or not with what was asked for; `status` is 0 without an answer."""

    def __init__(self, status: int = 0) -> None:
        self.message = f"The image archive answered {status}" if status else "The image archive does not answer"
        super().__init__(self.message)


class ArchiveWriter:
    """Connections to Orthanc, each lent to one thread at a time."""

    def __init__(self, base_url: str, username: str, password: str) -> None:
        parts = urlsplit(base_url)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._address = (str(parts.hostname), parts.port or (443 if self._tls else 80))
        self._path = parts.path.rstrip("/")
        pair = base64.b64encode(f"{username}:{password}".encode()).decode()
        self._headers = f"Host: {parts.netloc.rpartition('@')[2]}\r\nAuthorization: Basic {pair}\r\n"
        self._idle: queue.LifoQueue[socket.socket] = queue.LifoQueue()

    def store(self, content: bytes | list[memoryview]) -> tuple[str, str] | None:
        """Store one instance. Returns (orthanc id, "Success" | "AlreadyStored"), or None when Orthanc cannot parse it.

        Raises
        ------
        ArchiveAnswerError
            Nothing was acknowledged.
        """
        pieces = [content] if isinstance(content, bytes) else content
        return _acknowledged(*self._send("POST", "/instances", pieces, "application/dicom"))

    def begin(self, size: int) -> Transfer:
        """Begin to store an instance of so many bytes, which follow. It ends with `finish` or `abandon`.

        Raises
        ------
        ArchiveAnswerError
            Orthanc cannot be reached.
        OSError
            The connection broke off.
        """
        connection, _ = self._connection()
        try:
            connection.sendall(self._head("POST", "/instances", "application/dicom", size))
        except BaseException:
            connection.close()
            raise
        return Transfer(connection, self._idle)

    def find(self, sop_instance_uids: Sequence[str]) -> set[str]:
        """Orthanc ids of all instances with one of these UIDs.

        Raises
        ------
        ArchiveAnswerError
            It is not known.
        """
        found: set[str] = set()
        for start in range(0, len(sop_instance_uids), _FOUND_AT_ONCE):
            uids = "\\".join(sop_instance_uids[start : start + _FOUND_AT_ONCE])
            question = orjson.dumps({"Level": "Instance", "Query": {"SOPInstanceUID": uids}})
            status, body = self._send("POST", "/tools/find", [question], "application/json")
            if status != 200:
                raise ArchiveAnswerError(status)
            found.update(orjson.loads(body))
        return found

    def count(self) -> int:
        """How many instances the archive holds."""
        return int(self._get("/statistics")["CountInstances"])

    def last_change(self) -> int:
        """Return the number of the newest entry of the archive's change log."""
        return int(self._get("/changes?last")["Last"])

    def new_instances(self, since: int) -> tuple[list[str], int, bool]:
        """Orthanc ids that the change log names after an entry, the entry up to which it was read, whether that is all.

        Raises
        ------
        ArchiveAnswerError
            It is not known.
        """
        page = self._get(f"/changes?since={since}&limit={_CHANGES_AT_ONCE}")
        found = [str(item["ID"]) for item in page["Changes"] if item["ChangeType"] == "NewInstance"]
        return found, int(page["Last"]), bool(page["Done"])

    def sop_instance_uid(self, orthanc_id: str) -> str:
        """SOP Instance UID of an instance; empty when it is gone."""
        status, body = self._send("GET", f"/instances/{orthanc_id}")
        if status == 404:
            return ""
        if status != 200:
            raise ArchiveAnswerError(status)
        return str(orjson.loads(body)["MainDicomTags"].get("SOPInstanceUID", ""))

    def close(self) -> None:
        """Close what is idle."""
        while not self._idle.empty():
            self._idle.get().close()

    def _get(self, path: str) -> dict[str, Any]:
        status, body = self._send("GET", path)
        if status != 200:
            raise ArchiveAnswerError(status)
        answer: dict[str, Any] = orjson.loads(body)
        return answer

    def _send(
        self, method: str, path: str, body: Sequence[bytes | memoryview] = (), content_type: str = ""
    ) -> tuple[int, bytes]:
        head = self._head(method, path, content_type, sum(map(len, body)))
        while True:
            connection, is_new = self._connection()
            try:
                connection.sendall(head)
                for piece in body:
                    connection.sendall(piece)
                status, content, stays = _read_answer(connection)
            except OSError as exc:
                connection.close()
                # Orthanc may have closed a connection that was idle. To send again is safe: it stores nothing twice.
                if is_new or not isinstance(exc, ConnectionError):
                    raise ArchiveAnswerError from exc
                continue
            if stays:
                self._idle.put(connection)
            else:
                connection.close()
            return status, content

    def _head(self, method: str, path: str, content_type: str, size: int) -> bytes:
        head = f"{method} {self._path}{path} HTTP/1.1\r\n{self._headers}"
        if content_type:
            head += f"Content-Type: {content_type}\r\nContent-Length: {size}\r\n"
        return f"{head}\r\n".encode("ascii")

    def _connection(self) -> tuple[socket.socket, bool]:
        """Return a connection, and whether it is a new one.

        Raises
        ------
        ArchiveAnswerError
            Orthanc cannot be reached.
        """
        while not self._idle.empty():
            with contextlib.suppress(queue.Empty):
                connection = self._idle.get_nowait()
                if not _is_readable(connection):
                    return connection, False
                connection.close()  # Orthanc ended it: it does so after half a second without a request
        try:
            connection = socket.create_connection(self._address, timeout=_CONNECT_S)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_hostname=self._address[0])
        except OSError as exc:
            raise ArchiveAnswerError from exc
        connection.settimeout(_ANSWER_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, True


class Transfer:
    """An instance on its way into Orthanc, on a connection of its own; used by one thread."""

    def __init__(self, connection: socket.socket, idle: queue.LifoQueue[socket.socket]) -> None:
        self._connection, self._idle = connection, idle

    def send(self, piece: bytes | memoryview) -> None:
        """Send the next bytes.

        Raises
        ------
        OSError
            The connection broke off.
        """
        self._connection.sendall(piece)

    def finish(self) -> tuple[str, str] | None:
        """Return what `ArchiveWriter.store` returns, once everything was sent.

        Raises
        ------
        ArchiveAnswerError
            Nothing was acknowledged.
        """
        try:
            status, content, stays = _read_answer(self._connection)
        except OSError as exc:
            self._connection.close()
            raise ArchiveAnswerError from exc
        if stays:
            self._idle.put(self._connection)
        else:
            self._connection.close()
        return _acknowledged(status, content)

    def abandon(self) -> None:
        """Break it off: Orthanc stores nothing of a body that is shorter than announced."""
        self._connection.close()


def _acknowledged(status: int, body: bytes) -> tuple[str, str] | None:
    if status == 400:
        return None
    if status != 200:
        raise ArchiveAnswerError(status)
    answer = orjson.loads(body)
    return str(answer["ID"]), str(answer["Status"])


def _read_answer(connection: socket.socket) -> tuple[int, bytes, bool]:
    """Read status and body of an answer of known length, and whether the connection stays open.

    Raises
    ------
    OSError
        It ends before it is whole (`ConnectionResetError` where nothing came), or is not such an answer.
    """
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        piece = connection.recv(_READ_BYTES)
        if not piece:
            raise ConnectionResetError if not data else OSError("The answer is cut off")
        data += piece
        if len(data) > _MOST_HEADER_BYTES + _READ_BYTES:
            raise OSError("The answer has too long a head")
    head = bytes(data[: end + 2])
    status, length = _STATUS.match(head), _LENGTH.search(head)
    if status is None or length is None or int(length[1]) > _MOST_ANSWER_BYTES:
        raise OSError("Not an answer of known length")
    size = end + 4 + int(length[1])
    while len(data) < size:
        piece = connection.recv(_READ_BYTES)
        if not piece:
            raise OSError("The answer is cut off")
        data += piece
    return int(status[1]), bytes(data[end + 4 : size]), len(data) == size and _CLOSES.search(head) is None


def _is_readable(connection: socket.socket) -> bool:
    """Whether there is something to read, which on an idle connection can only be its end."""
    asked = select.poll()
    asked.register(connection, select.POLLIN)
    return bool(asked.poll(0))
