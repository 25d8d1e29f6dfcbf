"""Rotation of the keys that seal stored secrets: while people sign in, killed halfway, with a KMS; SYNTHETIC data."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyotp
import pytest
from sqlalchemy import delete, insert, select
from typer.testing import CliRunner, Result

from foramen.commands import keys as keys_command
from foramen.identity import tables
from foramen.identity.app import IdentityService
from foramen.identity.database import transaction, utc_now
from foramen.identity.federation import outside_sessions, requests
from foramen.identity.federation.outside_identity import OutsideIdentity
from foramen.identity.federation.providers import find_provider
from foramen.identity.opaque_tokens import digest
from foramen.identity.people import totp
from foramen.identity.resealing import reseal
from foramen.identity.sealed_columns import SEALED_COLUMNS, totp_purpose
from foramen.identity.sealing import DataKeys, protect_files, read_data_keys, ring_file, watch_data_keys
from foramen.kernel.crypto.generations import parse, text_of
from foramen.kernel.crypto.key_wrapping import KeyWrappingError
from foramen.kernel.errors import ConflictError, InteropError
from foramen.kernel.secret_files import file_lock, read_or_create_secret
from foramen.kernel.settings import Settings, get_settings
from foramen.launcher import trials
from tests.builders.kms import synthetic_kms
from tests.contract.smart.federation_people import trust
from tests.contract.smart.people import ORIGIN, People, cookie_of, people_server

ISSUER = "https://login.example.org"
Command = Callable[..., Result]


@pytest.fixture(scope="module")
async def people(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    async with people_server(module_database_url, tmp_path_factory.mktemp("home")) as server:
        yield server


def environment(people: People) -> dict[str, str]:
    values = {"HOME": str(people.settings.home), "DATABASE_URL": people.database_url, "PUBLIC_URL": ORIGIN}
    return {f"FORAMEN_{name}": value for name, value in values.items()}


@pytest.fixture
def command(people: People, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Run `foramen keys …` as an operator does; settings are given as FORAMEN_* without the prefix."""
    for name, value in environment(people).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str, **settings: str) -> Result:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(f"FORAMEN_{name}", value)
            get_settings.cache_clear()
            return CliRunner().invoke(keys_command.app, list(arguments))

    yield run
    get_settings.cache_clear()


def data_generations(command: Command, **settings: str) -> list[dict[str, Any]]:
    return [key for key in json.loads(command("list", **settings).stdout) if key.get("use") == "seal"]


def heads(people: People) -> set[str]:
    """Beginning of everything that is sealed: version, cipher and key."""
    found = set()
    for one in SEALED_COLUMNS:
        with transaction(people.database_url) as connection:
            values = connection.execute(select(one.column).where(one.column.is_not(None))).scalars()
            found |= {value.rpartition(":")[0] for value in values}
    return found


def secrets_of(people: People) -> list[str]:
    """Every form in which a key of the file could be written."""
    keys = [one.secret for one in ring_file(people.settings.home, None).read() if isinstance(one.secret, bytes)]
    encodings = (base64.b64encode, base64.urlsafe_b64encode)
    texts = [encode(key).decode()[:40] for key in keys for encode in encodings]
    return [*texts, *(form for key in keys for form in (key.hex(), repr(key), str(list(key))))]


async def with_app(people: People, name: str) -> tuple[Any, pyotp.TOTP]:
    people.add(name)
    browser = people.browser()
    await people.passwords(browser, name)
    await browser.open("/auth/enrol?then=account")
    otp, _ = await people.enrol_totp(browser)
    return browser, otp


async def signs_in(people: People, name: str, otp: pyotp.TOTP) -> bool:
    """Sign in with password and code, in a new browser."""
    browser = people.browser()
    await people.passwords(browser, name)
    people.forget_step()
    page = await browser.submit(code=otp.now())
    return str(page.url).endswith("/auth/account")


async def test_everything_sealed_is_sealed_again_while_people_sign_in(people: People, command: Command):
    browser, otp = await with_app(people, "during")
    session = digest(cookie_of(browser) or "")
    trust(people, "hospital", ISSUER)
    keys = people.service.environment.data_keys
    now = utc_now()
    with transaction(people.database_url) as connection:
        provider = find_provider(connection, "hospital")
        assert provider is not None
        state = requests.begin(
            connection, keys, provider="hospital", browser="b", purpose="sign-in", now=now, destination={"then": "x"}
        )
        found = OutsideIdentity(ISSUER, "s1", {}, now, id_token="SYNTHETIC id_token")
        outside_sessions.note(connection, keys, provider, found, "during", "cookie", ("password",), now + timedelta(1))
        trial = trials.Trial("t1", "openid", f"{ORIGIN}/apps/launcher/", f"{ORIGIN}/fhir")
        trials.start(connection, keys, session, trial)
    before = keys.current_id
    assert {head.split(":")[2] for head in heads(people)} == {before}

    rotation = asyncio.create_task(asyncio.to_thread(command, "rotate-data"))
    results = []
    while not rotation.done():
        results.append(await signs_in(people, "during", otp))
    done = await rotation
    assert done.exit_code == 0, done.output
    assert len(results) > 3
    assert all(results)

    report = json.loads(done.stdout)
    # Signing in seals an authenticator's secret again as well, and may have been first.
    assert {*report["resealed"], "totp_device"} == {one.table.name for one in SEALED_COLUMNS}
    assert keys.current_id == report["kid"] != before  # the server was not started again
    assert heads(people) == {f"v2:AES-256-GCM:{report['kid']}"}
    with transaction(people.database_url) as connection:
        provider = find_provider(connection, "hospital")
        assert provider is not None
        assert provider.secret(keys)
        held = outside_sessions.origin(connection, "cookie")
        assert held is not None
        assert outside_sessions.id_token_of(keys, held) == "SYNTHETIC id_token"
        assert trials.find(connection, keys, session, "t1").verifier == trial.verifier
        pending = requests.take(connection, keys, provider="hospital", state=state, browser="b", now=utc_now())
        assert pending is not None
        assert pending.destination == {"then": "x"}
    assert await signs_in(people, "during", otp)
    states = [(one["state"], one["resealed"]) for one in data_generations(command)]
    assert states == [("retired", True), ("active", True)]
    assert ("0", "data-keys-rotated") in people.events("key-rotation")
    assert ("0", "data-keys-resealed") in people.events("key-rotation")
    assert not [form for form in secrets_of(people) if form in done.output + command("list").output]


def _many_devices(people: People, keys: DataKeys, count: int) -> None:
    now, account = utc_now(), "many"
    people.add(account)
    devices = [uuid.uuid4() for _ in range(count)]
    rows = [
        {
            "id": device,
            "account": account,
            "name": "SYNTHETIC",
            "sealed_secret": keys.seal(f"S{device}".encode(), totp_purpose(account, device)),
            "last_step": 0,
            "created_at": now,
            "last_used_at": now,
        }
        for device in devices
    ]
    with transaction(people.database_url) as connection:
        connection.execute(insert(tables.totp_device), rows)


def _sealed_with(people: People, kid: str) -> int:
    statement = "SELECT count(*) FROM identity.totp_device WHERE split_part(sealed_secret, ':', 3) = :kid"
    return int(people.execute(statement, kid=kid)[0][0])


async def test_killed_in_the_middle_it_goes_on_with_the_same_key(people: People, command: Command):
    _, otp = await with_app(people, "killed")
    count = 2000
    _many_devices(people, people.service.environment.data_keys, count)
    known = {one["kid"] for one in data_generations(command)}
    process = subprocess.Popen(  # noqa: ASYNC220 - starting takes a moment, and it is killed by its id
        [sys.executable, "-c", "from foramen.cli import main; main()", "keys", "rotate-data"],
        env={**os.environ, **environment(people)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    new, deadline = "", time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        new = new or next((one.id for one in ring_file(people.settings.home, None).read() if one.id not in known), "")
        if new and _sealed_with(people, new) > 0:
            break
        await asyncio.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = _sealed_with(people, new)
    assert 0 < done < count
    assert len(heads(people)) > 1
    assert await signs_in(people, "killed", otp)  # old and new are read beside each other
    assert data_generations(command)[-1]["resealed"] is False

    again = await asyncio.to_thread(command, "rotate-data")
    assert again.exit_code == 0, again.output
    report = json.loads(again.stdout)
    assert (report["kid"], report["new"]) == (new, False)
    assert report["resealed"]["totp_device"] <= count - done + 2
    assert {one["kid"] for one in data_generations(command)} == {*known, new}
    assert heads(people) == {f"v2:AES-256-GCM:{new}"}
    keys = people.service.environment.data_keys
    for device, sealed in people.execute("SELECT id, sealed_secret FROM identity.totp_device WHERE account = 'many'"):
        assert keys.unseal(sealed, totp_purpose("many", device)) == f"S{device}".encode()
    people.execute("DELETE FROM identity.totp_device WHERE account = 'many'")


async def test_the_cipher_changes_to_sm4_and_back(people: People, command: Command):
    _, otp = await with_app(people, "cipher")
    environment = people.service.environment
    for name in ("SM4-GCM", "AES-256-GCM"):
        done = await asyncio.to_thread(command, "rotate-data", "--reseal-only", CIPHER=name)
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["new"] is False
        assert {head.split(":")[1] for head in heads(people)} == {name}
        changed = Settings(home=people.settings.home, public_url=ORIGIN, cipher=name)
        service = IdentityService(changed, people.database_url)  # a server that was started with the setting
        sealed = service.environment.data_keys.seal(b"x", "y")
        assert sealed.split(":")[1] == name
        assert environment.data_keys.unseal(sealed, "y") == b"x"  # and one that was not yet
        await service.stop()
        people.execute("UPDATE identity.totp_device SET last_step = 0")
        with transaction(people.database_url) as connection:
            assert totp.use_code(connection, service.environment.data_keys, "cipher", otp.now(), utc_now())
        assert await signs_in(people, "cipher", otp)


async def test_a_value_moved_to_another_row_opens_nothing_and_is_reported(people: People, command: Command):
    _, attacker = await with_app(people, "attacker")
    _, victim = await with_app(people, "victim")
    own = people.execute("SELECT sealed_secret FROM identity.totp_device WHERE account = 'victim'")[0][0]
    stolen = people.execute("SELECT sealed_secret FROM identity.totp_device WHERE account = 'attacker'")[0][0]
    put = "UPDATE identity.totp_device SET sealed_secret = :value WHERE account = 'victim'"
    people.execute(put, value=stolen)
    assert not await signs_in(people, "victim", attacker)
    for value in (own[:-6], own[:-8] + own[:-9:-1], "", "x"):
        people.execute(put, value=value)
        assert not await signs_in(people, "victim", victim)
    people.execute(put, value=stolen)
    done = await asyncio.to_thread(command, "rotate-data", "--reseal-only", CIPHER="SM4-GCM")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["unreadable"] == {"totp_device": 1}
    assert people.execute("SELECT sealed_secret FROM identity.totp_device WHERE account = 'victim'")[0][0] == stolen
    people.execute(put, value=own)
    assert await signs_in(people, "victim", victim)
    done = await asyncio.to_thread(command, "rotate-data", "--reseal-only")
    assert done.exit_code == 0, done.output


class Meddling(DataKeys):
    """Data keys that let somebody else write a row in the moment between reading and replacing it."""

    meddle: Callable[[], None] | None = None

    def seal(self, plain: bytes, purpose: str) -> str:
        meddle, self.meddle = self.meddle, None
        if meddle:
            meddle()
        return super().seal(plain, purpose)


async def test_what_a_server_writes_meanwhile_is_not_overwritten(people: People):
    await with_app(people, "meanwhile")
    device, own = people.execute("SELECT id, sealed_secret FROM identity.totp_device WHERE account = 'meanwhile'")[0]
    provider = people.service.environment.data_keys.provider
    keys = Meddling(provider, "SM4-GCM")
    newer = people.service.environment.data_keys.seal(b"NEWER", totp_purpose("meanwhile", device))
    put = "UPDATE identity.totp_device SET sealed_secret = :value WHERE account = 'meanwhile'"
    keys.meddle = lambda: people.execute(put, value=newer) and None
    with transaction(people.database_url) as connection:
        connection.execute(delete(tables.totp_device).where(tables.totp_device.c.account != "meanwhile"))
    column = [one for one in SEALED_COLUMNS if one.table is tables.totp_device]
    done = reseal(lambda: transaction(people.database_url), keys, column)
    assert done.complete
    value = people.execute("SELECT sealed_secret FROM identity.totp_device WHERE account = 'meanwhile'")[0][0]
    assert value.startswith("v2:SM4-GCM:")
    assert value != own
    assert keys.unseal(value, totp_purpose("meanwhile", device)) == b"NEWER"
    reseal(lambda: transaction(people.database_url), DataKeys(provider), column)


def test_another_installations_key_opens_nothing(people: People, tmp_path: Path):
    foreign = read_data_keys(tmp_path, None)
    with pytest.raises(InteropError, match="not among"):
        foreign.unseal(people.service.environment.data_keys.seal(b"x", "y"), "y")


def test_one_rotation_at_a_time(people: People, command: Command):
    with file_lock(people.settings.home / "secrets" / ".data-keys.rotation"):
        refused = command("rotate-data")
    assert isinstance(refused.exception, ConflictError)


def test_a_database_that_is_away_stops_it_and_it_goes_on_later(people: People, command: Command):
    count = len(data_generations(command))
    away = "postgresql://nobody@127.0.0.1:1/none"
    first = command("rotate-data", DATABASE_URL=away)
    second = command("rotate-data", DATABASE_URL=away)
    for refused in (first, second):
        assert isinstance(refused.exception, InteropError)
        assert "go on" in refused.exception.message
    assert len(data_generations(command)) == count + 1
    done = command("rotate-data")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["new"] is False
    assert len(data_generations(command)) == count + 1


def test_old_keys_are_dropped_when_nothing_needs_them(people: People, command: Command):
    *old, active = data_generations(command)
    assert isinstance(command("drop-data", active["kid"]).exception, ConflictError)
    refused = command("drop-data", old[0]["kid"])  # a form in a browser may still be sealed with it
    assert isinstance(refused.exception, ConflictError)
    file = ring_file(people.settings.home, None)
    earlier = text_of(
        [
            type(one)(one.id, one.made_at, one.seals_from - 7200, resealed=one.resealed, secret=one.secret)
            for one in file.read()
        ]
    )
    file.path.write_text(earlier, encoding="utf-8")
    used = DataKeys([one.secret for one in parse(earlier) if one.id == old[0]["kid"]])
    people.execute(
        "INSERT INTO identity.account (name, password_hash, role, disabled, failed_attempts, created_at, "
        "code_failures, locks, code_locks) VALUES ('old', '', 'physician', false, 0, now(), 0, 0, 0)"
    )
    device = uuid.uuid4()
    with transaction(people.database_url) as connection:
        sealed = used.seal(b"s", totp_purpose("old", device))
        values = {"account": "old", "name": "x", "sealed_secret": sealed, "last_step": 0, "created_at": utc_now()}
        connection.execute(insert(tables.totp_device).values(id=device, **values))
    refused = command("drop-data", old[0]["kid"])
    assert isinstance(refused.exception, ConflictError)
    assert refused.exception.message.startswith("1 stored values")
    people.execute("DELETE FROM identity.totp_device WHERE account = 'old'")
    dropped = command("drop-data", old[0]["kid"])
    assert dropped.exit_code == 0, dropped.output
    assert old[0]["kid"] not in [one["kid"] for one in data_generations(command)]


async def test_a_kms_holds_the_key_that_opens_all_others(people: People, command: Command, tmp_path: Path):
    kms = synthetic_kms(tmp_path / "kms")
    _, otp = await with_app(people, "kms")
    settings = Settings(home=people.settings.home, public_url=ORIGIN, kms_command=kms.command)
    with pytest.raises(KeyWrappingError, match="wrap-data"):
        IdentityService(settings, people.database_url)
    plain, kid = secrets_of(people), people.service.environment.signer.keys.active().kid
    seal = read_or_create_secret(people.settings.home, "audit-seal")
    wrapped = command("wrap-data", KMS_COMMAND=kms.command)
    assert wrapped.exit_code == 0, wrapped.output
    text = (people.settings.home / "secrets" / "data-keys").read_text(encoding="utf-8")
    assert not [form for form in plain if form in text + wrapped.output]
    assert data_generations(command, KMS_COMMAND=kms.command)[-1]["wrapped_by"] == "kek-1"
    for name, told in (("signing.jwks.json", '"d"'), ("audit-seal", seal)):
        lying = (people.settings.home / "secrets" / name).read_text(encoding="utf-8")
        assert lying.startswith("v2:AES-256-GCM:")
        assert told not in lying
    assert people.service.environment.signer.keys.active().kid == kid, "who runs goes on"

    service = IdentityService(settings, people.database_url)
    keys = service.environment.data_keys
    watch = asyncio.create_task(watch_data_keys(keys))
    before = keys.current_id
    done = await asyncio.to_thread(command, "rotate-data", KMS_COMMAND=kms.command)
    assert done.exit_code == 0, done.output
    assert keys.current_id == json.loads(done.stdout)["kid"] != before
    protect_files(settings)
    for name in ("signing.jwks.json", "audit-seal"):  # Sealed again by the key of now, with the same content.
        path = people.settings.home / "secrets" / name
        assert path.read_text(encoding="utf-8").split(":")[2] == keys.current_id
    assert read_or_create_secret(people.settings.home, "audit-seal") == seal
    assert service.environment.signer.keys.active().kid == kid
    rotated = command("rotate", "--now", KMS_COMMAND=kms.command)
    assert rotated.exit_code == 0, rotated.output
    service.environment.signer.keys.refresh()
    assert service.environment.signer.keys.active().kid == json.loads(rotated.stdout)["kid"] != kid
    with transaction(people.database_url) as connection:
        people.execute("UPDATE identity.totp_device SET last_step = 0")
        assert totp.use_code(connection, keys, "kms", otp.now(), utc_now())
    watch.cancel()
    with suppress(asyncio.CancelledError):
        await watch
    await service.stop()

    kms.mode("fail")
    with pytest.raises(KeyWrappingError, match="could not unwrap"):
        IdentityService(settings, people.database_url)
    with pytest.raises(KeyWrappingError, match="no KMS command is set"):
        IdentityService(people.settings, people.database_url)
    refused = command("rotate-data", KMS_COMMAND=kms.command)
    assert isinstance(refused.exception, KeyWrappingError)


def test_serve_does_not_start_without_the_kms(people: People, tmp_path: Path):
    """The whole command: an exit with a clear line, and nothing of the keys in what it says."""
    kms = synthetic_kms(tmp_path / "kms")
    kms.mode("fail")
    settings = {**environment(people), "FORAMEN_HOME": str(tmp_path / "home"), "FORAMEN_KMS_COMMAND": kms.command}
    done = subprocess.run(
        [sys.executable, "-c", "from foramen.cli import main; main()", "serve", "--only", "identity"],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "foramen: The KMS command could not wrap a data key (exit status 3)"
    assert not (tmp_path / "home" / "secrets" / "data-keys").exists()
