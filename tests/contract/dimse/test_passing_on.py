"""Instances go on to the archive while they still arrive: what breaks off, or is not as it began, leaves nothing there.

SYNTHETIC images of 720,000 bytes: more than one PDU, less than what becomes a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import MRImageStorage

from dicomweb.archive_writer import ArchiveWriter
from dicomweb.dimse.passing_on import Admitted, PassingOn
from dicomweb.store.inspect import inspect
from foramen.kernel.secret_files import read_or_create_secret
from tests.builders.dicom import encoded, series
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dimse.conftest import AET, Dimse

_EDGE = (600, 600)
_PIECE = 16384


@pytest.fixture
def writer(gateway: Gateway) -> Iterator[ArchiveWriter]:
    settings = gateway.orthanc.settings
    password = read_or_create_secret(settings.home, "orthanc")
    writer = ArchiveWriter(settings.archive_url, settings.orthanc_username, password)
    yield writer
    writer.close()


class _OnItsWay:
    """An instance that is received in pieces."""

    def __init__(self, writer: ArchiveWriter, content: bytes) -> None:
        self.lock, self.content, self.noted = threading.Lock(), content, list[str]()
        self.passing_on = PassingOn(writer, self._admit)

    def _admit(self, head: bytes, size: int) -> Admitted:
        assert size == len(self.content)
        assert self.content.startswith(head)
        self.lock.acquire()
        return Admitted(*inspect(BytesIO(self.content)), self.lock)

    def come(self, until: int | None = None) -> None:
        for start in range(0, len(self.content[:until]), _PIECE):
            self.passing_on.take(memoryview(self.content[:until])[start : start + _PIECE])

    def arrived(self) -> Any:
        return self.passing_on.arrived(lambda orthanc_id, _: self.noted.append(orthanc_id))


@pytest.mark.requirement("PS3.4 B.2.3: an instance is passed on while it comes, and is there once it was acknowledged")
async def test_it_is_there_when_it_has_arrived(gateway: Gateway, writer: ArchiveWriter) -> None:
    before = gateway.orthanc.count()
    one = _OnItsWay(writer, encoded(series(1, seed=90, size=_EDGE)[0]))
    one.come(len(one.content) // 2)
    assert one.passing_on.is_under_way
    assert one.lock.locked()
    assert gateway.orthanc.count() == before
    for start in range(len(one.content) // 2, len(one.content), _PIECE):
        one.passing_on.take(one.content[start : start + _PIECE])
    admitted, orthanc_id = one.arrived()
    assert one.noted == [orthanc_id]
    assert not one.lock.locked()
    assert gateway.orthanc.count() == before + 1
    with gateway.orthanc.client() as client:
        assert client.get(f"/instances/{orthanc_id}/file").content == one.content
    assert admitted.header.sop_instance_uid
    again = _OnItsWay(writer, one.content)
    again.come()
    assert again.arrived() is None  # the archive has it already: it is compared by the way for whole instances
    assert not again.lock.locked()


@pytest.mark.requirement("PS3.7 9.1.1: what is broken off on its way to the archive leaves nothing there")
async def test_what_is_broken_off_leaves_nothing(gateway: Gateway, writer: ArchiveWriter) -> None:
    before = gateway.orthanc.count()
    content = encoded(series(1, seed=91, size=_EDGE)[0])
    short, long, dropped = (_OnItsWay(writer, content) for _ in range(3))
    short.come(len(content) - 2)
    assert short.passing_on.is_under_way
    assert short.arrived() is None
    long.come()
    long.passing_on.take(b"\xfc\xff\xfc\xffOB\0\0\0\0\0\0")
    assert not long.passing_on.is_under_way
    assert long.arrived() is None
    dropped.come(len(content) // 2)
    dropped.passing_on.break_off()
    dropped.passing_on.break_off()
    for one in (short, long, dropped):
        assert not one.lock.locked()
        assert one.noted == []
    assert gateway.orthanc.count() == before
    whole = _OnItsWay(writer, content)
    whole.come()
    assert whole.arrived() is not None
    assert gateway.orthanc.count() == before + 1


async def test_the_archive_goes_away_meanwhile(gateway: Gateway, writer: ArchiveWriter) -> None:
    one = _OnItsWay(writer, encoded(series(1, seed=92, size=_EDGE)[0]))
    one.come(len(one.content) // 2)
    gateway.orthanc.kill()
    try:
        for start in range(len(one.content) // 2, len(one.content), _PIECE):
            one.passing_on.take(one.content[start : start + _PIECE])
        assert one.arrived() is None
        assert not one.lock.locked()
    finally:
        await asyncio.to_thread(gateway.orthanc.start)


def _associate() -> AE:
    caller = AE(ae_title="PEER")
    caller.add_requested_context(MRImageStorage)
    return caller


@pytest.fixture(scope="module", autouse=True)
async def patient(gateway: Gateway, dimse: Dimse) -> None:
    await gateway.add_patient("SYN-1", "passing-on")
    dimse.account("PEER")


@pytest.mark.requirement("PS3.7 9.1.1: an association aborted while its instance is passed on leaves nothing")
async def test_an_abort_on_the_way_leaves_nothing_and_the_instance_can_come_again(
    gateway: Gateway, dimse: Dimse
) -> None:
    one = series(1, seed=93, size=_EDGE)[0]
    before = gateway.orthanc.count()

    def abort() -> None:
        association = _associate().associate("127.0.0.1", dimse.port, ae_title=AET)
        sent = 0

        def cut(event: Any) -> None:
            nonlocal sent
            sent += 1
            if sent == 3:  # the request, and two of three pieces
                event.assoc.dul.socket.close()

        association.bind(evt.EVT_PDU_SENT, cut)
        with contextlib.suppress(Exception):
            association.send_c_store(one)

    await asyncio.to_thread(abort)
    await asyncio.sleep(0.5)
    assert gateway.orthanc.count() == before
    query = "SELECT count(*) FROM dicomweb.instance WHERE sop_instance_uid = %s"
    assert dimse.rows(query, str(one.SOPInstanceUID))[0][0] == 0
    assert await asyncio.to_thread(_send, dimse, one) == [0x0000]
    assert gateway.orthanc.count() == before + 1


def _send(dimse: Dimse, *images: Dataset) -> list[int]:
    association = _associate().associate("127.0.0.1", dimse.port, ae_title=AET)
    assert association.is_established
    try:
        return [int(association.send_c_store(one).Status) for one in images]
    finally:
        association.release()


@pytest.mark.requirement("PS3.4 B.2.3: 0111H, other pixels under a UID that is being passed on or was")
async def test_other_pixels_under_the_same_uid(gateway: Gateway, dimse: Dimse) -> None:
    one, other = series(1, seed=94, size=_EDGE)[0], series(1, seed=94, size=_EDGE)[0]
    assert one.SOPInstanceUID == other.SOPInstanceUID
    other.PixelData = bytes(reversed(one.PixelData))
    before = gateway.orthanc.count()
    answers = await asyncio.gather(*(asyncio.to_thread(_send, dimse, image, image) for image in (one, other)))
    assert sorted(map(tuple, answers)) == [(0x0000, 0x0000), (0x0111, 0x0111)]
    assert gateway.orthanc.count() == before + 1
    trailing, deep = series(1, seed=95, size=_EDGE)[0], series(1, seed=96, size=_EDGE)[0]
    trailing.add_new(0xFFFCFFFC, "OB", b"\0" * 64)
    deep.Rows += 1  # more than its pixel data hold
    assert await asyncio.to_thread(_send, dimse, trailing, deep) == [0x0000, 0xC000]
    assert gateway.orthanc.count() == before + 2
