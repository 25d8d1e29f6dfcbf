"""The file of signing keys: rotation, retirement, several processes, crashes."""

from __future__ import annotations

import json
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from foramen.identity.oauth import signing_keys
from foramen.identity.oauth.signing_keys import PUBLISH_AHEAD_S, SigningKeys, active_key, kept_keys
from foramen.kernel.errors import UpstreamError
from foramen.kernel.secret_files import read_or_create_key

BOTH = ("ES256", "RS256")
FILE = "secrets/signing.jwks.json"


def kids(keys: SigningKeys, alg: str = "ES256") -> list[str]:
    return [key.kid for key in keys.all() if key.alg == alg]


def kept(keys: SigningKeys, now: float) -> set[str]:
    return {key.kid for key in kept_keys(keys.all(), now) if key.alg == "ES256"}


def test_the_first_key_is_made_once_by_whoever_is_first(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        found = {
            keys.active(alg).kid for keys in pool.map(lambda _: SigningKeys(tmp_path, 3600), range(8)) for alg in BOTH
        }
    assert len(found) == len(BOTH)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_the_single_key_of_earlier_versions_is_taken_over(tmp_path: Path):
    before = read_or_create_key(tmp_path, "signing")
    keys = SigningKeys(tmp_path, 3600)
    assert keys.active().kid == before.kid
    assert keys.active().key.as_dict(private=True)["d"] == before.as_dict(private=True)["d"]
    assert not (tmp_path / "secrets/signing.jwk.json").exists(), "no second copy of a private key lies about"
    assert SigningKeys(tmp_path, 3600).active().kid == before.kid


def test_a_new_key_is_published_before_it_signs_and_an_old_one_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    keys = SigningKeys(tmp_path, 3600)
    first = keys.active().kid
    second = keys.rotate().kid
    assert kids(keys) == [first, second]
    now = time.time()
    assert active_key(keys.all(), now).kid == first
    assert active_key(keys.all(), now + PUBLISH_AHEAD_S + 1).kid == second
    still = kept(keys, now + PUBLISH_AHEAD_S + 3590)
    over = kept(keys, now + PUBLISH_AHEAD_S + 3610)
    assert (still, over) == ({first, second}, {second})
    monkeypatch.setattr(signing_keys.time, "time", lambda: now + PUBLISH_AHEAD_S + 3610)
    third = keys.rotate().kid
    assert kids(keys) == [second, third]


def test_a_key_is_kept_for_a_token_that_lives_longer_than_others(tmp_path: Path):
    keys = SigningKeys(tmp_path, 3600)
    first, year = keys.active(), time.time() + 365 * 86400
    keys.note_token(first, year)
    keys.rotate(at_once=True)
    assert first.kid in kept(keys, year - 10)
    assert first.kid not in kept(keys, year + 10)


def test_after_a_theft_the_old_keys_are_gone_at_once(tmp_path: Path):
    keys = SigningKeys(tmp_path, 3600)
    first = keys.active().kid
    new = keys.rotate(drop_old=True)
    assert kids(keys) == [new.kid]
    assert keys.active().kid == new.kid != first


def test_another_process_sees_the_change(tmp_path: Path):
    one, two = SigningKeys(tmp_path, 3600), SigningKeys(tmp_path, 3600)
    new = one.rotate(at_once=True)
    assert two.refresh()
    assert two.active().kid == new.kid
    assert not two.refresh()


def test_rotations_at_once_lose_no_key(tmp_path: Path):
    first = SigningKeys(tmp_path, 3600).active().kid
    with ThreadPoolExecutor(8) as pool:
        made = {key.kid for key in pool.map(lambda _: SigningKeys(tmp_path, 3600).rotate(), range(8))}
    assert set(kids(SigningKeys(tmp_path, 3600))) == {first, *made}


def test_a_writer_that_dies_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    keys = SigningKeys(tmp_path, 3600)
    before = (tmp_path / FILE).read_bytes()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(signing_keys.Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        keys.rotate()
    monkeypatch.undo()
    assert (tmp_path / FILE).read_bytes() == before
    keys.rotate()
    assert len(kids(keys)) == 2


def test_a_damaged_file_is_a_named_fault_and_what_was_read_stays_good(tmp_path: Path):
    keys = SigningKeys(tmp_path, 3600)
    kid = keys.active().kid
    whole = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(whole[:40])
    with pytest.raises(UpstreamError):
        SigningKeys(tmp_path, 3600)
    (tmp_path / FILE).unlink()
    assert not keys.refresh()
    assert keys.active().kid == kid
    (tmp_path / FILE).write_text(json.dumps({"keys": []}))
    with pytest.raises(UpstreamError):
        SigningKeys(tmp_path, 3600)
