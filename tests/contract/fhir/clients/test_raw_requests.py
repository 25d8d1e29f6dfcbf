"""Requests that no HTTP library would send: cut off, of a wrong length, of odd methods and paths. A real socket.

RFC 9112 §6.3 (message body length), §3.2 (request target).
"""

from __future__ import annotations

import contextlib
import socket

import httpx
import pytest

from tests.contract.fhir.server_process import ServerProcess, authorization

_PATIENT = b'{"resourceType":"Patient","id":"raw","name":[{"family":"SYNTHETIC"}]}'


def _ask(server: ServerProcess, head: str, body: bytes = b"", *, shut: bool = False, wait_s: float = 5.0) -> bytes:
    """Send these bytes and return what comes back until the server closes or waits for more."""
    request = f"{head}\r\nHost: 127.0.0.1\r\nAuthorization: {authorization()}\r\n"
    if "Content-Type" not in head:
        request += "Content-Type: application/fhir+json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=wait_s) as connection:
        connection.sendall(request.encode("latin-1") + b"\r\n" + body)
        if shut:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while chunk := connection.recv(65_536):
                answer += chunk
                if b"\r\n\r\n" in answer and b"content-length" in answer.lower():
                    break
    return answer


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


def _exists(server: ServerProcess) -> bool:
    headers = {"Authorization": authorization()}
    return httpx.get(f"{server.base}/Patient/raw", headers=headers).status_code == 200


def test_a_body_that_is_cut_off_changes_nothing(server: ServerProcess):
    head = f"PUT /fhir/Patient/raw HTTP/1.1\r\nContent-Length: {len(_PATIENT)}"
    answer = _ask(server, head, _PATIENT[:-10], shut=True, wait_s=2)
    assert _status(answer) in (0, 400, 408)
    # A whole JSON document, but announced longer: what did not arrive must not be guessed.
    longer = f"PUT /fhir/Patient/raw HTTP/1.1\r\nContent-Length: {len(_PATIENT) + 5}"
    answer = _ask(server, longer, _PATIENT, shut=True, wait_s=2)
    assert _status(answer) in (0, 400, 408)
    chunked = "PUT /fhir/Patient/raw HTTP/1.1\r\nTransfer-Encoding: chunked"
    answer = _ask(server, chunked, b"%x\r\n%s\r\n" % (len(_PATIENT), _PATIENT), shut=True, wait_s=2)
    assert _status(answer) in (0, 400, 408)
    assert not _exists(server)


def test_a_body_announced_too_short(server: ServerProcess):
    head = "PUT /fhir/Patient/raw HTTP/1.1\r\nContent-Length: 20"
    assert _status(_ask(server, head, _PATIENT)) == 400
    assert not _exists(server)


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999999999999999999999", "5, 6"])
def test_a_length_that_is_none(server: ServerProcess, length: str):
    head = f"PUT /fhir/Patient/raw HTTP/1.1\r\nContent-Length: {length}"
    assert _status(_ask(server, head, _PATIENT, shut=True, wait_s=2)) in (0, 400, 413)
    assert not _exists(server)


def test_an_announced_giant_is_refused_before_it_comes(server: ServerProcess):
    head = "PUT /fhir/Patient/raw HTTP/1.1\r\nContent-Length: 100000000000"
    assert _status(_ask(server, head, b"{")) == 413


def test_two_lengths_cannot_smuggle(server: ServerProcess):
    body = b"0\r\n\r\nGET /fhir/Patient/raw HTTP/1.1\r\nHost: x\r\n\r\n"
    head = f"POST /fhir/Patient HTTP/1.1\r\nContent-Length: {len(body)}\r\nTransfer-Encoding: chunked"
    answer = _ask(server, head, body, shut=True, wait_s=2)
    assert _status(answer) in (0, 400)
    assert answer.count(b"HTTP/1.1 ") <= 1


@pytest.mark.parametrize(
    "target",
    [
        "/fhir/Patient/../../etc/passwd",
        "/fhir/Patient/..",
        "/fhir/../fhir/Patient/x",
        "/fhir/./Patient/x",
        "/fhir//..//Patient",
        "/fhir/Patient/%2e%2e%2f%2e%2e",
        "/fhir/Patient/x%00.json",
        "/fhir/Patient/x?" + "a" * 70_000,
        "/fhir/" + "Patient/" * 9_000,
    ],
)
def test_targets(server: ServerProcess, target: str):
    answer = _ask(server, f"GET {target} HTTP/1.1")
    assert _status(answer) in (0, 400, 404, 405, 414, 431), answer[:200]
    assert b"root:" not in answer


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "BREW", "get", "G" * 200])
def test_methods(server: ServerProcess, method: str):
    answer = _ask(server, f"{method} /fhir/Patient/raw HTTP/1.1")
    assert _status(answer) in (0, 400, 404, 405), answer[:200]
    assert b"authorization" not in answer.lower()


def test_the_server_still_serves(server: ServerProcess):
    assert httpx.get(f"{server.base}/metadata").status_code == 200
    assert server.process.poll() is None
