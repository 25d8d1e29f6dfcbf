"""Secrets are made once, readable by the owner alone."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from foramen.kernel.secret_files import read_or_create_key, read_or_create_secret


def test_everybody_reads_the_same_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: read_or_create_secret(tmp_path, "notify"), range(16)))
    assert len(secrets) == 1
    assert len(secrets.pop()) >= 43
    assert stat.S_IMODE((tmp_path / "secrets" / "notify").stat().st_mode) == 0o600


def test_a_key_keeps_its_id(tmp_path: Path) -> None:
    first, again = read_or_create_key(tmp_path, "signing"), read_or_create_key(tmp_path, "signing")
    assert first.kid
    assert first.as_dict(private=True) == again.as_dict(private=True)
