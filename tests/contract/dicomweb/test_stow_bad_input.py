"""STOW-RS against broken and hostile senders: a defined status, nothing half-visible, nothing acknowledged lost.

DICOM PS3.18 §10.5.3, Annex I
"""

from __future__ import annotations

import asyncio
import copy
import struct
import tracemalloc
import zlib
from typing import Any

import pytest
from pydicom import Dataset

from dicomweb.instance_check import FailureReason
from dicomweb.store import structure
from dicomweb.store.report import WarningReason
from tests.builders.dicom import BOUNDARY, MULTIPART, encoded, multipart, series
from tests.builders.tokens import bearer, token
from tests.contract.dicomweb.conftest import WRITE, Gateway

pytestmark = pytest.mark.requirement("PS3.18 10.5.3: a defined answer to bad input, and no trace of it")


def reasons(body: dict[str, Any]) -> list[int]:
    items = body.get("00081198", {}).get("Value", []) + body.get("0008119A", {}).get("Value", [])
    return [item["00081197"]["Value"][0] for item in items]


def file_of(syntax: str, dataset: bytes) -> bytes:
    """A Part 10 file with this data set behind its File Meta Information."""
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    element = b"\x02\x00\x10\x00UI" + struct.pack("<H", len(uid)) + uid
    length = b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<I", len(element))
    return b"\0" * 128 + b"DICM" + length + element + dataset


def nested(depth: int, *, defined: bool) -> bytes:
    """Sequences in sequences, explicit VR little endian."""
    head, tail = b"\x40\x00\x30\xa7SQ\0\0", b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    if not defined:
        open_ = head + b"\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
        return open_ * depth + tail * depth
    content = b""
    for _ in range(depth):
        item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content)) + content
        content = head + struct.pack("<I", len(item)) + item
    return content


@pytest.mark.parametrize("defined", [True, False])
async def test_sequences_nested_too_deep_are_refused(gateway: Gateway, defined: bool) -> None:
    one = encoded(series(1, seed=221)[0])
    answer = await gateway.store(one + b"", file_of("1.2.840.10008.1.2.1", nested(5000, defined=defined)))
    assert answer.status_code == 202  # the good one beside it is stored
    assert reasons(answer.json()) == [FailureReason.CANNOT_UNDERSTAND]


async def test_nesting_of_practice_is_stored(gateway: Gateway) -> None:
    one = series(1, seed=222, patient_id="SYN-222")[0]
    inner = Dataset()
    for _ in range(20):
        outer = Dataset()
        outer.ContentSequence = [inner]
        inner = outer
    one.ContentSequence = [inner]
    assert (await gateway.store(one)).status_code == 200


async def test_a_file_of_countless_elements_is_refused(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "MAX_ELEMENTS", 10_000)
    empty = b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" * 20_000
    answer = await gateway.store(file_of("1.2.840.10008.1.2.1", empty + b"\xfe\xff\xdd\xe0\0\0\0\0"))
    assert (answer.status_code, reasons(answer.json())) == (409, [FailureReason.OUT_OF_RESOURCES])


async def test_a_compressed_bomb_is_never_inflated(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "MAX_INFLATED_BYTES", 32 * 1024 * 1024)
    pack = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = b"\0" * (16 * 1024 * 1024)
    bomb = b"".join(pack.compress(zeros) for _ in range(12)) + pack.flush()  # 192 MiB in 190 KiB
    tracemalloc.start()
    answer = await gateway.store(file_of("1.2.840.10008.1.2.1.99", bomb))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (answer.status_code, reasons(answer.json())) == (409, [FailureReason.OUT_OF_RESOURCES])
    assert peak < 80 * 1024 * 1024


async def test_a_deflated_instance_is_stored(gateway: Gateway) -> None:
    one = series(1, seed=223, patient_id="SYN-223")[0]
    one.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    assert (await gateway.store(encoded(one))).status_code == 200


async def test_lying_lengths_are_refused_without_memory(gateway: Gateway) -> None:
    whole = encoded(series(1, seed=224)[0])
    place = whole.index(b"\xe0\x7f\x10\x00")
    lying = whole[: place + 8] + b"\xf0\xff\xff\x7f" + whole[place + 12 :]
    tracemalloc.start()
    answer = await gateway.store(lying)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (answer.status_code, reasons(answer.json())) == (409, [FailureReason.CANNOT_UNDERSTAND])
    assert peak < 64 * 1024 * 1024


async def test_a_content_coding_is_refused(gateway: Gateway) -> None:
    headers = bearer(WRITE) | {"Content-Type": MULTIPART, "Content-Encoding": "gzip"}
    answer = await gateway.http.post("/studies", content=b"\x1f\x8b", headers=headers)
    assert answer.status_code == 415


async def test_two_images_under_one_uid_in_one_request(gateway: Gateway) -> None:
    one = series(1, seed=225, patient_id="SYN-225")[0]
    other = copy.deepcopy(one)
    other.PixelData = bytes(reversed(one.PixelData))
    answer = await gateway.store(one, other)
    assert answer.status_code == 202
    assert reasons(answer.json()) == [FailureReason.DUPLICATE_SOP_INSTANCE]
    assert len(answer.json()["00081199"]["Value"]) == 1


async def test_one_uid_in_two_studies_at_the_same_time(gateway: Gateway) -> None:
    """Both requests are under way at once: one is stored, the other is told so, and nobody is told what is not true."""
    one = series(1, seed=226, patient_id="SYN-226")[0]
    other = series(1, seed=227, patient_id="SYN-227")[0]
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    answers = await asyncio.gather(gateway.store(one), gateway.store(other))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    good = next(answer for answer in answers if answer.status_code == 200)
    (stored,) = good.json()["00081199"]["Value"]
    assert (await gateway.get(stored["00081190"]["Value"][0])).status_code == 200


async def test_one_request_cannot_bring_two_patients_into_a_new_study(gateway: Gateway) -> None:
    one, two = series(2, seed=228, patient_id="SYN-228")
    two.PatientID = "SYN-999"
    answer = await gateway.store(one, two)
    assert answer.status_code == 202
    assert reasons(answer.json()) == [FailureReason.STUDY_OR_PATIENT_MISMATCH]


@pytest.mark.requirement("PS3.18 I.2.1: a data set that does not fit its SOP class is stored with a warning")
async def test_an_image_without_pixels_is_stored_with_a_warning(gateway: Gateway) -> None:
    one = series(1, seed=229, patient_id="SYN-229")[0]
    del one.PixelData
    answer = await gateway.store(one)
    assert answer.status_code == 202
    (item,) = answer.json()["00081199"]["Value"]
    assert item["00081196"]["Value"] == [WarningReason.DOES_NOT_MATCH_SOP_CLASS]


@pytest.mark.requirement("PS3.18 I.2.2: a SOP class that is none of stored instances")
async def test_a_class_that_is_not_stored_is_refused(gateway: Gateway) -> None:
    one = series(1, seed=230)[0]
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.31"  # Modality Worklist
    answer = await gateway.store(one)
    assert (answer.status_code, reasons(answer.json())) == (409, [FailureReason.SOP_CLASS_NOT_SUPPORTED])


async def test_ten_thousand_parts(gateway: Gateway) -> None:
    """All are answered for one by one; memory stays that of one body, and no file is open for each."""
    one = encoded(series(1, seed=231, patient_id="SYN-231")[0])
    answer = await gateway.store(*[one] * 3, *[b"SYNTHETIC no instance"] * 9_997)
    assert answer.status_code == 202
    assert len(answer.json()["00081199"]["Value"]) == 3
    assert reasons(answer.json()) == [FailureReason.CANNOT_UNDERSTAND] * 9_997


async def test_too_many_parts_are_413(gateway: Gateway) -> None:
    body = multipart(*[b"x"] * 20_001)
    answer = await gateway.http.post("/studies", content=body, headers=bearer(WRITE) | {"Content-Type": MULTIPART})
    assert answer.status_code == 413


async def raw(gateway: Gateway, *pieces: bytes | float, answer_bytes: int = 65_536) -> bytes:
    """Send pieces over a bare connection, pausing for numbers; returns what came back."""
    settings = gateway.orthanc.settings
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
    try:
        for piece in pieces:
            if isinstance(piece, float):
                await asyncio.sleep(piece)
            else:
                writer.write(piece)
                await writer.drain()
        async with asyncio.timeout(15):
            return await reader.read(answer_bytes)
    finally:
        writer.close()


def head(length: int, *more: str) -> bytes:
    lines = [
        "POST /dicom-web/studies HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {token(WRITE)}",
        f"Content-Type: {MULTIPART}",
        f"Content-Length: {length}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def test_a_sender_that_stops_is_given_up(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.service._settings, "stow_idle_s", 0.5)
    before = gateway.orthanc.count()
    answer = await raw(gateway, head(100_000), f"--{BOUNDARY}\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 408")
    assert gateway.orthanc.count() == before


async def test_a_slow_sender_is_waited_for(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.service._settings, "stow_idle_s", 1.0)
    body = multipart(encoded(series(1, seed=232, patient_id="SYN-232")[0]))
    third = len(body) // 3
    pieces = (body[:third], 0.6, body[third : 2 * third], 0.6, body[2 * third :])
    assert (await raw(gateway, head(len(body)), *pieces)).startswith(b"HTTP/1.1 200")


async def test_expect_100_continue(gateway: Gateway) -> None:
    body = multipart(encoded(series(1, seed=233, patient_id="SYN-233")[0]))
    settings = gateway.orthanc.settings
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
    writer.write(head(len(body), "Expect: 100-continue"))
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(body)
        assert (await reader.read(12)) == b"HTTP/1.1 200"
    writer.close()


async def test_who_may_not_store_is_refused_before_the_body_is_asked_for(gateway: Gateway) -> None:
    refused = head(10_000_000, "Expect: 100-continue").replace(token(WRITE).encode()[:20], b"x" * 20)
    assert (await raw(gateway, refused)).startswith(b"HTTP/1.1 401")


async def test_a_body_that_breaks_off_changes_nothing(gateway: Gateway) -> None:
    body = multipart(encoded(series(1, seed=234, patient_id="SYN-234")[0]))
    before = gateway.orthanc.count()
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.orthanc.settings.port)
    writer.write(head(len(body)) + body[: len(body) // 2])
    await writer.drain()
    writer.close()
    await asyncio.sleep(0.5)
    assert gateway.orthanc.count() == before
