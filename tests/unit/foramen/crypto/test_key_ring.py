"""Generations of data keys in a file: readers, writers, wrapped by a KMS, and every way that fails; SYNTHETIC keys."""

from __future__ import annotations

import base64
import json
import threading
import time
from pathlib import Path

import pytest

from foramen.kernel.crypto.generations import key_id, parse
from foramen.kernel.crypto.key_ring import KeyRing, RingFile
from foramen.kernel.crypto.key_wrapping import KeyWrappingError, KmsCommand
from foramen.kernel.errors import ConflictError, InteropError, NotFoundError, UpstreamError
from tests.builders.kms import SyntheticKms, synthetic_kms


@pytest.fixture
def file(tmp_path: Path) -> RingFile:
    return RingFile(tmp_path / "secrets" / "data-keys", own=True)


@pytest.fixture
def kms(tmp_path: Path) -> SyntheticKms:
    return synthetic_kms(tmp_path / "kms")


def wrapping(kms: SyntheticKms, timeout_s: float = 20) -> KmsCommand:
    return KmsCommand(kms.command, timeout_s)


def test_first_use_makes_one_key_for_the_owner_alone(file: RingFile):
    first, second = KeyRing(file, None), KeyRing(file, None)
    assert first.current() == second.current()
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert repr(first.current().secret) not in repr(first.current())
    assert base64.urlsafe_b64encode(first.current().secret).decode()[:20] not in repr(file.read())


def test_the_form_of_earlier_versions_is_read_and_rotated(file: RingFile):
    file.path.parent.mkdir()
    lines = [base64.urlsafe_b64encode(letter * 32).rstrip(b"=").decode() for letter in (b"n", b"o", b"p")]
    file.path.write_text("# newest first\n" + "\n".join(lines), encoding="utf-8")
    file.path.chmod(0o600)
    ring = KeyRing(file, None)
    assert ring.current().secret == b"n" * 32
    assert [key.secret for key in ring.all()] == [b"n" * 32, b"o" * 32, b"p" * 32]
    made = file.add(None, ahead_s=0)
    ring.refresh()
    assert ring.current().id == made.id
    assert ring.find(key_id(b"p" * 32)) is not None


def test_a_generation_is_known_before_it_seals(file: RingFile):
    ring = KeyRing(file, None)
    old = ring.current().id
    made = file.add(None, ahead_s=0.6)
    assert ring.find(made.id) is not None
    assert ring.current().id == old
    time.sleep(0.7)
    assert ring.current().id == made.id
    assert ring.find("000000000000") is None


def test_what_is_wrong_with_the_file_is_refused_and_nothing_of_it_repeated(file: RingFile):
    ring = KeyRing(file, None)
    whole = file.path.read_text(encoding="utf-8")
    content = json.loads(whole)
    other_id = json.dumps({**content, "generations": [{**content["generations"][0], "id": "000000000000"}]})
    short = json.dumps({**content, "generations": [{**content["generations"][0], "key": "c2hvcnQ"}]})
    bad_lines = ("c2hvcnQ", "SECRET!!", "", "# none\n")
    for bad in (whole[:-20], whole[: len(whole) // 2], other_id, short, '{"format": 9}', "{}", "[]", *bad_lines):
        file.path.write_text(bad, encoding="utf-8")
        with pytest.raises(InteropError) as refused:
            KeyRing(file, None)
        assert content["generations"][0]["key"] not in f"{refused.value!r} {refused.value.__cause__!r}"
        assert "SECRET" not in str(refused.value)
        assert ring.current() is not None  # who has read it goes on
    with pytest.raises(UpstreamError):  # "could not look" is not "there is none"
        ring.find("000000000000")
    file.path.unlink()
    assert ring.current() is not None
    with pytest.raises(InteropError):
        KeyRing(RingFile(file.path, own=False), None)


def test_a_file_that_everybody_may_read_is_refused(file: RingFile):
    KeyRing(file, None)
    file.path.chmod(0o644)
    with pytest.raises(InteropError, match="chmod 600"):
        KeyRing(file, None)
    assert KeyRing(RingFile(file.path, own=False), None).current()  # the operator's own file is the operator's affair
    file.path.chmod(0o660)
    KeyRing(file, None)


def test_readers_never_see_a_part_while_keys_are_added(file: RingFile):
    ring = KeyRing(file, None)
    faults: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                KeyRing(file, None)
            except BaseException as exc:  # noqa: BLE001 - the test says what it was
                faults.append(exc)
                return

    readers = [threading.Thread(target=read) for _ in range(3)]
    writers = [threading.Thread(target=lambda: [file.add(None, 0) for _ in range(4)]) for _ in range(3)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    ring.refresh()
    assert faults == []
    assert len({key.id for key in ring.all()}) == 13  # no writer has lost another's


def test_old_generations_are_dropped_and_no_others(file: RingFile):
    ring = KeyRing(file, None)
    old = ring.current().id
    with pytest.raises(NotFoundError):
        file.drop("000000000000", 0)
    with pytest.raises(ConflictError):
        file.drop(old, 0)
    new = file.add(None, ahead_s=0)
    following = file.add(None, ahead_s=60)
    assert file.add(None, ahead_s=0).seals_from > following.seals_from  # they seal in the order they were made
    with pytest.raises(ConflictError):  # its time has not come
        file.drop(following.id, 0)
    with pytest.raises(ConflictError):  # it sealed until just now
        file.drop(old, 3600)
    file.drop(old, 0)
    ring.refresh()
    assert ring.find(old) is None
    assert ring.current().id == new.id


def test_wrapped_by_a_kms(file: RingFile, kms: SyntheticKms):
    ring = KeyRing(file, wrapping(kms))
    text = file.path.read_text(encoding="utf-8")
    assert base64.urlsafe_b64encode(ring.current().secret).rstrip(b"=").decode() not in text
    assert base64.b64encode(ring.current().secret).decode() not in text
    assert parse(text)[0].wrapped_by == "kek-1"
    assert KeyRing(file, wrapping(kms)).current() == ring.current()
    asked = len(kms.calls)
    for _ in range(10):
        ring.current()
        ring.refresh()
        ring.find("000000000000")
    assert len(kms.calls) == asked  # a KMS is not asked for what is known


def test_taking_a_kms_into_use_and_changing_its_key(file: RingFile, kms: SyntheticKms):
    plain = KeyRing(file, None).current()
    with pytest.raises(KeyWrappingError, match="wrap-data"):
        KeyRing(file, wrapping(kms))
    file.wrap(wrapping(kms))
    assert KeyRing(file, wrapping(kms)).current() == plain
    with pytest.raises(KeyWrappingError, match="no KMS command is set"):
        KeyRing(file, None)
    with pytest.raises(KeyWrappingError):
        file.add(None)
    kms.use("kek-2", b"l" * 32)
    file.wrap(wrapping(kms))
    assert [one.wrapped_by for one in file.read()] == ["kek-2"]
    (kms.folder / "kek-1").unlink()
    assert KeyRing(file, wrapping(kms)).current() == plain


@pytest.mark.parametrize("mode", ["fail", "fault", "nonsense", "echo", "other"])
def test_a_kms_that_fails_stops_the_start_and_shows_nothing(file: RingFile, kms: SyntheticKms, mode: str):
    KeyRing(file, wrapping(kms))
    before = file.path.read_bytes()
    secret = json.loads(before)["generations"][0]["wrapped"]
    kms.mode(mode)
    for what in (lambda: KeyRing(file, wrapping(kms)), lambda: file.add(wrapping(kms))):
        with pytest.raises(KeyWrappingError) as refused:
            what()
        said = f"{refused.value!r} {refused.value.__cause__!r}"
        assert secret not in said
    assert file.path.read_bytes() == before
    with pytest.raises(KeyWrappingError):
        KeyRing(RingFile(file.path.with_name("new"), own=True), wrapping(kms))
    assert not file.path.with_name("new").exists()  # no key was kept plain instead


def test_a_kms_that_hangs_is_given_up(file: RingFile, kms: SyntheticKms):
    KeyRing(file, wrapping(kms))
    kms.mode("hang")
    began = time.monotonic()
    with pytest.raises(KeyWrappingError, match=r"0\.5 s"):
        KeyRing(file, wrapping(kms, 0.5))
    assert time.monotonic() - began < 10


def test_a_wrong_key_encryption_key_and_exchanged_generations_are_refused(file: RingFile, kms: SyntheticKms):
    KeyRing(file, wrapping(kms))
    file.add(wrapping(kms), 0)
    content = json.loads(file.path.read_text(encoding="utf-8"))
    one, two = content["generations"]
    one["wrapped"], two["wrapped"] = two["wrapped"], one["wrapped"]
    exchanged = json.dumps(content)
    whole = file.path.read_text(encoding="utf-8")
    file.path.write_text(exchanged, encoding="utf-8")
    with pytest.raises(KeyWrappingError):
        KeyRing(file, wrapping(kms))
    file.path.write_text(whole, encoding="utf-8")
    kms.use("kek-1", b"x" * 32)
    with pytest.raises(KeyWrappingError):
        KeyRing(file, wrapping(kms))


def test_a_kms_away_does_not_stop_who_runs_and_is_not_asked_by_everybody(file: RingFile, kms: SyntheticKms):
    ring = KeyRing(file, wrapping(kms))
    old = ring.current()
    made = file.add(wrapping(kms), 0)
    kms.mode("fail")
    asked = len(kms.calls)
    time.sleep(1.1)
    assert ring.current() == old
    assert len(kms.calls) == asked  # whoever seals does not wait for a KMS
    for _ in range(5):
        assert ring.current() == old
        with pytest.raises(UpstreamError):
            ring.find(made.id)
    assert len(kms.calls) == asked + 1
    kms.mode("work")
    ring.refresh()
    found = ring.find(made.id)
    assert found is not None
    assert ring.current() == found


def test_a_command_that_cannot_be_run(file: RingFile):
    for command in ("/nonexistent/kms", "'unfinished"):
        with pytest.raises(KeyWrappingError, match="cannot be run"):
            KeyRing(file, KmsCommand(command, 5))
