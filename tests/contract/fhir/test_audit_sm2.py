"""Checkpoints of the audit chain signed with SM2 by the setting, and verified beside those with ES256."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from fhir_server.audit.checkpoint import KIND, checkpoint_key, checkpoint_signer
from fhir_server.audit.verification import kept_in
from foramen.kernel.crypto import SignatureError, verified_statement
from foramen.kernel.crypto.signatures import AlgorithmUnavailableError
from tests.contract.fhir.api import Api, patient_resource, running
from tests.contract.fhir.test_sealed_keys import Command, command  # noqa: F401 - a fixture


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path))
    return tmp_path


async def test_checkpoints_of_either_algorithm_are_verified(
    home: Path,
    command: Command,  # noqa: F811
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files: list[Path] = []
    for algorithm in ("ES256", "SM2", "ES256"):
        monkeypatch.setenv("FORAMEN_AUDIT_SIGNATURE", algorithm)
        async with running(database_url) as (service, client):
            await Api(client).create(patient_resource())
            await service._server.audit_indexer.settle()
            await service._sealer.seal()
            path = await service._sealer.checkpoint()
            assert path is not None
            files.append(path)
    made = files[1].read_text()
    assert json.loads(base64.urlsafe_b64decode(made.split(".")[0] + "=="))["alg"] == "SM2"
    public = json.loads((home / "audit" / "checkpoint-key-sm2.json").read_bytes())
    assert kept_in(files[1], home / "elsewhere", public).block >= 1
    with pytest.raises(SignatureError):
        kept_in(files[1], home, checkpoint_key(home))
    with psycopg.connect(database_url) as connection:
        (signed,) = connection.execute("SELECT count(*) FROM fhir.audit_checkpoint").fetchone() or (0,)
    assert signed >= 3
    verified = await asyncio.to_thread(command, "audit", "verify")
    assert verified.exit_code == 0, verified.output
    head, payload, signature = made.strip().split(".")
    claims = orjson.loads(base64.urlsafe_b64decode(payload + "=="))
    forged = base64.urlsafe_b64encode(orjson.dumps({**claims, "events": 1})).rstrip(b"=").decode()
    files[1].write_text(f"{head}.{forged}.{signature}\n")
    assert (await asyncio.to_thread(command, "audit", "verify")).exit_code == 1


def changed(text: str, part: int, change: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    parts = text.split(".")
    found = change(orjson.loads(base64.urlsafe_b64decode(parts[part] + "==")))
    parts[part] = base64.urlsafe_b64encode(orjson.dumps(found)).rstrip(b"=").decode()
    return ".".join(parts)


def test_the_key_decides_the_algorithm(home: Path, tmp_path: Path) -> None:
    sm2, es256 = checkpoint_signer(home, "SM2"), checkpoint_signer(home)
    text = sm2.sign(b'{"SYNTHETIC":1}')
    assert verified_statement(text, sm2.public(), KIND) == b'{"SYNTHETIC":1}'
    other = checkpoint_signer(tmp_path / "other", "SM2")
    for wrong, key in (
        (text, es256.public()),
        (es256.sign(b"{}"), sm2.public()),
        (text, other.public()),
        (changed(text, 0, lambda header: {**header, "alg": "ES256"}), sm2.public()),
        (changed(text, 0, lambda header: {**header, "alg": "none"}), sm2.public()),
        (changed(text, 1, lambda claims: {"SYNTHETIC": 2}), sm2.public()),
        (text.rpartition(".")[0] + ".", sm2.public()),
        ("", sm2.public()),
        ("a.b", sm2.public()),
    ):
        with pytest.raises(SignatureError):
            verified_statement(wrong, key, KIND)
    with pytest.raises(SignatureError):
        verified_statement(text, sm2.public(), "another+jws")


def test_another_tool_verifies_it(home: Path, tmp_path: Path) -> None:
    signer = checkpoint_signer(home, "SM2")
    signed, _, signature = signer.sign(b"{}").rpartition(".")
    (tmp_path / "key.pem").write_text(signer.public()["pem"])
    (tmp_path / "signature").write_bytes(base64.urlsafe_b64decode(signature + "=="))
    arguments = ["-sm3", "-sigopt", "distid:1234567812345678", "-verify", "key.pem", "-signature", "signature"]
    done = subprocess.run(["openssl", "dgst", *arguments], input=signed.encode(), cwd=tmp_path, capture_output=True)
    assert done.stdout.strip() == b"Verified OK"


async def test_without_sm2_nothing_starts(home: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORAMEN_AUDIT_SIGNATURE", "SM2")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(AlgorithmUnavailableError):
        async with running(database_url):
            pass
