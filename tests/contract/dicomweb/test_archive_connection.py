"""The archive ends a connection that was idle just as it is asked again: the question is asked anew.

Orthanc does so after half a second without a request (RFC 9112 §9.3.1, §9.6). The relay cuts what Orthanc would cut.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from dicomweb.archive import Archive, ArchiveError
from foramen.kernel.secret_files import read_or_create_secret
from tests.builders.dicom import encoded, series
from tests.contract.dicomweb.conftest import Gateway


class _Relay:
    """Connections to the archive, each cut when bytes come after so many answers."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address, self.answers, self.connections, self.cut = address, 1, 0, 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        answered = 0
        behind, ahead = await asyncio.open_connection(*self._address)
        with contextlib.suppress(ConnectionError):
            while question := await reader.read(65536):
                if answered >= self.answers:
                    self.cut += 1
                    break
                ahead.write(question)
                with contextlib.suppress(TimeoutError):
                    while answer := await asyncio.wait_for(behind.read(65536), 0.2):
                        writer.write(answer)
                        answered = 1
        ahead.close()
        writer.close()


@pytest.fixture
def relay(gateway: Gateway) -> _Relay:
    parts = urlsplit(gateway.orthanc.settings.archive_url)
    return _Relay((str(parts.hostname), int(parts.port or 80)))


@pytest.fixture
async def archive(gateway: Gateway, relay: _Relay) -> AsyncIterator[Archive]:
    settings = gateway.orthanc.settings
    async with await asyncio.start_server(relay.take, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        archive = Archive(
            f"http://127.0.0.1:{port}",
            settings.orthanc_username,
            read_or_create_secret(settings.home, "orthanc"),
        )
        yield archive
        await archive.close()


async def test_a_question_on_a_connection_that_ends_is_asked_anew(
    gateway: Gateway, archive: Archive, relay: _Relay
) -> None:
    datasets = series(2, seed=2810, patient_id="SYN-2810", size=(32, 32))
    assert (await gateway.store(*datasets)).status_code == 200
    uid = str(datasets[0].StudyInstanceUID)
    assert await archive.study_count(uid) == 2
    (name,) = await archive.find_instance(str(datasets[0].SOPInstanceUID))
    assert await archive.read(name) == encoded(datasets[0])
    assert relay.cut >= 2


async def test_an_archive_that_never_answers_is_told(archive: Archive, relay: _Relay) -> None:
    relay.answers = 0
    with pytest.raises(ArchiveError):
        await archive.count_studies()
    assert relay.connections <= 3


async def test_what_was_sent_in_chunks_is_not_sent_anew(gateway: Gateway, archive: Archive, relay: _Relay) -> None:
    (dataset,) = series(1, seed=2811, patient_id="SYN-2811", size=(32, 32))

    async def chunks() -> AsyncIterator[bytes]:
        yield encoded(dataset)

    await archive.count_studies()
    with pytest.raises(ArchiveError):
        await archive.store(chunks())
    assert await archive.find_instance(str(dataset.SOPInstanceUID)) == []
