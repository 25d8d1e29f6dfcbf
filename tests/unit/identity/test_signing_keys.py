"""The file of signing keys: rotation, retirement, several processes, crashes."""

from __future__ import annotations

import json
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import JWKRegistry

from foramen.identity.oauth import signing_keys
from foramen.identity.oauth.signing_keys import PUBLISH_AHEAD_S, SigningKeys, active_key, kept_keys
from foramen.identity.sealing import DataKeys
from foramen.kernel import secret_files
from foramen.kernel.errors import InteropError, UpstreamError
from foramen.kernel.secret_files import read_or_create_key, read_or_create_secret

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
    with pytest.raises(InteropError, match="chmod 600"):  # as any secret that other accounts may read
        SigningKeys(tmp_path, 3600)
    (tmp_path / FILE).chmod(0o600)
    with pytest.raises(UpstreamError):
        SigningKeys(tmp_path, 3600)


def test_where_a_kms_is_set_the_files_lie_sealed_and_there_is_no_way_around(tmp_path: Path):
    """ADR 0047: neither exchanged, nor opened without their key, nor read or kept plain."""
    secret_files.seal_files(tmp_path, DataKeys([b"k" * 32]))
    first = SigningKeys(tmp_path, 3600).active().kid
    seal = read_or_create_secret(tmp_path, "audit-seal")
    folder = tmp_path / "secrets"
    assert {(folder / name).read_text()[:3] for name in ("signing.jwks.json", "audit-seal")} == {"v2:"}
    assert SigningKeys(tmp_path, 3600).active().kid == first

    secret_files.seal_files(tmp_path, None)
    with pytest.raises(InteropError, match="no KMS command is set"):
        SigningKeys(tmp_path, 3600)
    secret_files.seal_files(tmp_path, DataKeys([b"o" * 32]))
    with pytest.raises(InteropError, match="not among the data keys"):
        SigningKeys(tmp_path, 3600)
    secret_files.seal_files(tmp_path, DataKeys([b"k" * 32]))
    (folder / "signing.jwks.json").write_text((folder / "audit-seal").read_text())
    with pytest.raises(InteropError):
        SigningKeys(tmp_path, 3600)
    (folder / "audit-seal").write_text(seal)
    with pytest.raises(InteropError, match="wrap-data"):
        read_or_create_secret(tmp_path, "audit-seal")
    secret_files.seal_files(tmp_path, None)


def test_a_process_that_knew_the_keys_before_a_kms_was_set_goes_on(tmp_path: Path):
    keys = SigningKeys(tmp_path, 3600)
    first = keys.active().kid
    secret_files.seal_files(tmp_path, DataKeys([b"k" * 32]))
    assert secret_files.take_over(tmp_path) == ["signing.jwks.json"]
    secret_files.seal_files(tmp_path, None)
    keys.refresh()
    assert keys.active().kid == first


@pytest.mark.parametrize("alg", BOTH)
def test_what_is_signed_is_a_jwt_as_others_read_it(tmp_path: Path, alg: str):
    """RFC 7515 §7.1, RFC 7518 §3.3 and §3.4: read by joserfc, many times, as r and s are of any length."""
    key = SigningKeys(tmp_path, 3600).active(alg)
    public = JWKRegistry.import_key(key.public())
    for number in range(300 if alg == "ES256" else 3):
        claims = {"sub": "SYNTHETIC 张", "number": number, "list": [1.5, None, True]}
        read = jwt.decode(key.sign_token("at+jwt", claims), public, algorithms=[alg])
        assert (read.header, read.claims) == ({"alg": alg, "typ": "at+jwt", "kid": key.kid}, claims)
