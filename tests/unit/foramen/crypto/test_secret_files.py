"""Secret files: made for the owner alone, refused when everybody may read or write them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from foramen.kernel.errors import InteropError
from foramen.kernel.secret_files import file_lock, read_or_create_key, read_or_create_secret, replace_private


def test_made_once_and_for_the_owner_alone(tmp_path: Path):
    before = os.umask(0)
    try:
        secret, key = read_or_create_secret(tmp_path, "s"), read_or_create_key(tmp_path, "k")
    finally:
        os.umask(before)
    assert read_or_create_secret(tmp_path, "s") == secret
    assert read_or_create_key(tmp_path, "k").thumbprint() == key.thumbprint()
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "secrets").iterdir()} == {0o600}


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666])
def test_a_file_open_to_everybody_is_refused_without_its_content(tmp_path: Path, mode: int):
    secret = read_or_create_secret(tmp_path, "s")
    read_or_create_key(tmp_path, "k")
    for path in (tmp_path / "secrets").iterdir():
        path.chmod(mode)
    for read in (lambda: read_or_create_secret(tmp_path, "s"), lambda: read_or_create_key(tmp_path, "k")):
        with pytest.raises(InteropError, match="chmod 600") as refused:
            read()
        assert secret not in str(refused.value)
        assert str(tmp_path) not in str(refused.value)


def test_replacing_leaves_no_other_file_and_no_rights(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("old", encoding="utf-8")
    replace_private(path, "new")
    assert path.read_text(encoding="utf-8") == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_lock_is_held_by_one(tmp_path: Path):
    with file_lock(tmp_path / "lock"), pytest.raises(BlockingIOError), file_lock(tmp_path / "lock", wait=False):
        pass
    with file_lock(tmp_path / "lock", wait=False):
        pass
