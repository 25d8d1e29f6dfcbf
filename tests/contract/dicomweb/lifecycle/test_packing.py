"""Studies compressed at rest are read as they were stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from dicomweb.lifecycle.at_rest import bytes_at_rest
from dicomweb.lifecycle.codec import Codec
from dicomweb.lifecycle.copies import ChecksumError
from dicomweb.lifecycle.nearline import Nearline
from dicomweb.lifecycle.packed_files import PackedFiles
from foramen.kernel.errors import UpstreamError
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dicomweb.lifecycle.files import AS_STORED, changed, kept, plain_files


async def test_a_compressed_study_is_read_byte_by_byte_as_it_was_stored(
    gateway: Gateway, stored: Any, packing: PackedFiles, nearline: Nearline, tmp_path: Path, module_database_url: str
):
    study, ids, names = stored
    before = [kept(tmp_path, name).read_bytes() for name in names]
    assert [packing.pack(name).freed > 0 for name in names] == [True, True]
    assert not plain_files(tmp_path, names)
    assert await gateway.service._archive.read(ids[0], keep=False) == before[0]  # As DIMSE asks.
    assert plain_files(tmp_path, names) in ([], names[:1])  # Orthanc keeps in memory what it read or stored last.
    await gateway.service._archive.unpacking.unpack(names[0])
    assert plain_files(tmp_path, names) == names[:1]
    assert [packing.pack(name).freed > 0 for name in names] == [True, False]
    whole = await gateway.get(f"/studies/{study}", accept=AS_STORED)
    assert whole.status_code == 200
    assert all(one in whole.content for one in before)
    assert not [one for one in nearline.verify() if one[0] in names]
    with psycopg.connect(module_database_url) as connection:
        connection.execute("DELETE FROM dicomweb.nearline_file WHERE study_instance_uid <> %s", (study,))
        found = bytes_at_rest(connection, tmp_path / "nearline", 10**9)
        connection.rollback()
    assert (found.files, found.original, found.unpacked) == (2, sum(map(len, before)), sum(map(len, before)))
    assert 0 < found.packed < found.original
    assert found.stored == 10**9 - found.saved + found.unpacked
    for name in names:
        packing.pack(name)
        assert nearline.recall(name) > 0
    assert [path for path in (tmp_path / "nearline").rglob("*") if path.is_file()] == []
    online = gateway.service._wado.files
    assert [(online._storage / name[:2] / name[2:4] / name).read_bytes() for name in names] == before


async def test_frames_and_pictures_of_a_compressed_image_come_from_where_they_always_came(
    gateway: Gateway, stored: Any, packing: PackedFiles, tmp_path: Path
):
    study, _, names = stored
    found = (await gateway.get(f"/studies/{study}/instances")).json()
    path = "/studies/{}/series/{}/instances/{}".format(
        *(found[0][tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
    )
    asked = [(f"{path}/frames/1", "application/octet-stream"), (f"{path}/rendered", "image/png")]
    before = [(await gateway.get(*one[:1], accept=one[1])).content for one in asked]
    for one, expected in zip(asked, before, strict=True):
        for name in names:
            packing.pack(name)
        assert not plain_files(tmp_path, names)
        again = await gateway.get(one[0], accept=one[1])
        assert (again.status_code, again.content) == (200, expected)


async def test_what_does_not_come_back_exactly_stays_as_it_is(
    gateway: Gateway, stored: Any, packing: PackedFiles, tmp_path: Path, codec: Codec
):
    _, _, names = stored

    def wrong(operation: str, source: Path, target: Path) -> str:
        done = codec(operation, source, target)
        if operation == "unpack":
            target.write_bytes(changed(target.read_bytes(), bit=2))
        return done

    packing._codec = wrong
    done = packing.pack(names[0])
    assert (done.kept, done.freed) == (True, 0)
    assert plain_files(tmp_path, names) == names
    folder = tmp_path / "nearline" / names[0][:2] / names[0][2:4]
    assert [path.name for path in folder.iterdir()] == [names[0]]
    copy = folder.parent.parent / names[1][:2] / names[1][2:4] / names[1]
    copy.write_bytes(changed(copy.read_bytes()))
    with pytest.raises(ChecksumError):  # The copy has rotted: that is no fault of the codec, and it is said.
        packing.pack(names[1])
    assert copy.exists()


async def test_a_second_folder_that_is_not_mounted_is_no_missing_study(
    gateway: Gateway, stored: Any, packing: PackedFiles, tmp_path: Path
):
    study, _, names = stored
    packing.pack(names[0])  # One is compressed, one is not.
    (tmp_path / "nearline").rename(tmp_path / "elsewhere")
    assert (await gateway.get(f"/studies/{study}", accept=AS_STORED)).status_code == 503
    (tmp_path / "elsewhere").rename(tmp_path / "nearline")
    assert (await gateway.get(f"/studies/{study}", accept=AS_STORED)).status_code == 200


async def test_a_broken_packed_file_is_given_to_nobody(
    gateway: Gateway, stored: Any, packing: PackedFiles, nearline: Nearline, tmp_path: Path
):
    _, _, names = stored
    packing.pack(names[0])
    packed = tmp_path / "nearline" / names[0][:2] / names[0][2:4] / f"{names[0]}.packed"
    content = bytearray(packed.read_bytes())
    content[len(content) // 2] ^= 0xFF
    packed.write_bytes(content)
    assert [one for one in nearline.verify() if one[0] == names[0]] == [(names[0], "changed")]
    with pytest.raises((ChecksumError, UpstreamError)):
        await gateway.service._archive.unpacking.unpack(names[0])
    with pytest.raises(ChecksumError):
        nearline.recall(names[0])
    assert [path.name for path in packed.parent.iterdir()] == [packed.name]


async def test_a_compressed_study_is_sent_image_by_image_and_breaks_off_at_one_that_is_broken(
    gateway: Gateway, stored: Any, packing: PackedFiles, tmp_path: Path
):
    study, _, names = stored
    before = {name: kept(tmp_path, name).read_bytes() for name in names}
    whole = await gateway.get(f"/studies/{study}", accept=AS_STORED)
    first, second = sorted(names, key=lambda name: whole.content.index(before[name]))
    for name in names:
        packing.pack(name)
    packed = kept(tmp_path, second).with_name(f"{second}.packed")
    packed.write_bytes(changed(packed.read_bytes()))
    headers = gateway.reader | {"Accept": AS_STORED}
    async with gateway.http.stream("GET", f"/studies/{study}", headers=headers) as answer:
        assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(whole.content)))
        received = bytearray()
        with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012  what arrives before it breaks off counts
            async for chunk in answer.aiter_raw():
                received += chunk
    # The first left before anybody had looked at the second, of which nothing did.
    assert before[first] in received
    assert before[second][:1000] not in received
    assert plain_files(tmp_path, names) == [first]
