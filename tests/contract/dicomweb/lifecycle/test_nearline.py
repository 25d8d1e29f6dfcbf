"""Files move to the second folder and back; Orthanc and the gateway read them wherever they are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dicomweb.lifecycle.archive_sizes import measure
from dicomweb.lifecycle.copies import ChecksumError
from dicomweb.lifecycle.legal_holds import in_force, place, release, require_not_held
from dicomweb.lifecycle.nearline import Attachment, Nearline
from foramen.kernel.errors import ConflictError, InvalidRequestError, NotFoundError, UpstreamError
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dicomweb.lifecycle.files import WHO, changed


async def test_a_moved_file_is_read_by_orthanc_and_gateway_and_comes_back(
    gateway: Gateway, stored: Any, nearline: Nearline, online: Path, tmp_path: Path
):
    study, ids, names = stored
    with gateway.orthanc.client() as client:
        before = [client.get(f"/instances/{one}/file").content for one in ids]
        for name in names:
            assert nearline.move(Attachment(name, study)) > 0
            assert nearline.move(Attachment(name, study)) == 0
            assert (online / name[:2] / name[2:4] / name).is_symlink()
        assert [client.get(f"/instances/{one}/file").content for one in ids] == before
        response = await gateway.get(
            f"/studies/{study}", accept='multipart/related; type="application/dicom"; transfer-syntax=*'
        )
        assert response.status_code == 200
        assert before[0] in response.content
        assert not [one for one in nearline.verify() if one[0] in names]
        for name in names:
            assert nearline.recall(name) > 0
            assert not (online / name[:2] / name[2:4] / name).is_symlink()
        assert [client.get(f"/instances/{one}/file").content for one in ids] == before
    assert [path for path in (tmp_path / "nearline").rglob("*") if path.is_file()] == []


async def test_a_copy_outlives_no_study_and_orthancs_deletion_leaves_the_copy_to_the_sweep(
    gateway: Gateway, stored: Any, nearline: Nearline, tmp_path: Path
):
    study, ids, names = stored
    for name in names:
        nearline.move(Attachment(name, study))
    nearline.sweep()
    assert nearline.sweep() == 0
    with gateway.orthanc.client() as client:
        assert client.delete(f"/instances/{ids[0]}").status_code == 200
    assert nearline.sweep() == 1
    assert len([path for path in (tmp_path / "nearline").rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize("step", ["copied", "noted", "linked"])
async def test_a_crash_at_any_step_loses_nothing(
    gateway: Gateway, stored: Any, nearline: Nearline, online: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    """The steps of a move are cut off one after the other; the file is read, and the move is done again."""
    study, ids, names = stored

    class Crash(BaseException):
        pass

    def crash(*_: Any, **__: Any) -> None:
        raise Crash

    where = {"copied": (psycopg.Connection, "execute"), "noted": (Path, "symlink_to"), "linked": (Path, "replace")}[
        step
    ]
    original = Path.replace
    if step == "linked":
        monkeypatch.setattr(
            Path, "replace", lambda self, to: crash() if self.name.endswith(".link") else original(self, to)
        )
    else:
        monkeypatch.setattr(*where, crash)
    with pytest.raises(Crash):
        nearline.move(Attachment(names[0], study))
    monkeypatch.undo()
    with gateway.orthanc.client() as client:
        assert client.get(f"/instances/{ids[0]}/file").status_code == 200
        assert nearline.move(Attachment(names[0], study)) > 0
        assert client.get(f"/instances/{ids[0]}/file").status_code == 200


async def test_a_broken_copy_is_noticed_and_never_takes_the_originals_place(
    gateway: Gateway, stored: Any, nearline: Nearline, online: Path, tmp_path: Path
):
    study, _, names = stored
    name = names[0]
    nearline.move(Attachment(name, study))
    copy = tmp_path / "nearline" / name[:2] / name[2:4] / name
    copy.write_bytes(changed(copy.read_bytes()))
    own = lambda: [one for one in nearline.verify() if one[0] == name]  # noqa: E731
    assert own() == [(name, "changed")]
    with pytest.raises(ChecksumError):
        nearline.recall(name)
    copy.unlink()
    assert own() == [(name, "missing")]
    with pytest.raises(UpstreamError):
        nearline.recall(name)
    assert os.path.lexists(online / name[:2] / name[2:4] / name)  # noqa: ASYNC240


async def test_a_held_study_is_not_removed_until_it_is_released(stored: Any, module_database_url: str):
    study, *_ = stored
    with psycopg.connect(module_database_url) as connection:
        require_not_held(connection, study)
        with pytest.raises(InvalidRequestError):
            place(connection, study, " ", WHO)
        place(connection, study, "court order 1", WHO)
        with pytest.raises(ConflictError):
            place(connection, study, "again", WHO)
        with pytest.raises(ConflictError):
            require_not_held(connection, study)
        assert [one.reason for one in in_force(connection) if one.study_instance_uid == study] == ["court order 1"]
        release(connection, study, WHO)
        require_not_held(connection, study)
        with pytest.raises(NotFoundError):
            release(connection, study, WHO)
        with pytest.raises(NotFoundError):
            place(connection, "1.2.3.9999", "no such study", WHO)
        events = [
            json.loads(row[0]) for row in connection.execute("SELECT event FROM dicomweb.audit_outbox").fetchall()
        ]
    codes = [one["subtype"][0]["code"] for one in events if f"urn:oid:{study}" in json.dumps(one)]
    assert codes[-2:] == ["legal-hold", "legal-hold-release"]


async def test_sizes_are_those_of_the_archive(gateway: Gateway, stored: Any):
    with gateway.orthanc.client() as client:
        found = measure(client)
        assert {one.modality for one in found.studies} == {"MR"}
        assert sum(one.size for one in found.studies) <= found.disk_size
        assert sum(one.instances for one in found.studies) == client.get("/statistics").json()["CountInstances"]
        assert all(one.size > 0 for one in found.studies)
