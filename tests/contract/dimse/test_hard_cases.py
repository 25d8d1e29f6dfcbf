"""Institutions, TLS, cancel, partial success, and peers that misbehave. SYNTHETIC images."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import resource
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    MRImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)
from typer.testing import CliRunner

from tests.builders.dicom import series
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dimse.conftest import AET, Dimse, run, storescp

SLICES = 6
_PDU_CLOSED_S = 12.0


@pytest.fixture(scope="module")
def institutions() -> str:
    return "separate"


@pytest.fixture(scope="module")
async def study(gateway: Gateway, dimse: Dimse) -> list[Dataset]:
    """A study of a patient of institution A; the peers ANNA and BEN belong to A and to B."""
    for one in ("inst-a", "inst-b"):
        await gateway.record.update({"resourceType": "Organization", "id": one, "name": f"SYNTHETIC {one}"})
    await gateway.add_patient("SYN-1", "dimse-three", institution="inst-a")
    dimse.account("ANNA", institution="inst-a")
    dimse.account("BEN", institution="inst-b")
    sent = series(SLICES, seed=71)
    status, said = await dimse.send(*sent, title="ANNA")
    assert status == 0, said
    await gateway.until(lambda: gateway.imaging_studies(str(sent[0].StudyInstanceUID)))
    return sent


def _identifier(level: str, **keys: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query


@contextlib.contextmanager
def _getter(dimse: Dimse, title: str, take: Any) -> Iterator[Any]:
    caller = AE(ae_title=title)
    caller.add_requested_context(StudyRootQueryRetrieveInformationModelGet)
    caller.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    caller.add_requested_context(MRImageStorage)
    roles = [build_role(MRImageStorage, scp_role=True)]
    handlers = [(evt.EVT_C_STORE, take)]
    association = caller.associate("127.0.0.1", dimse.port, ae_title=AET, ext_neg=roles, evt_handlers=handlers)
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def _get(dimse: Dimse, title: str, query: Dataset, take: Any) -> tuple[Dataset, Dataset | None]:
    """C-GET; returns the last status and its identifier."""
    with _getter(dimse, title, take) as association:
        return list(association.send_c_get(query, StudyRootQueryRetrieveInformationModelGet))[-1]


@pytest.mark.requirement("PS3.4 C.4: what an account may not see is not found, in every service")
async def test_another_institution_sees_nothing(gateway: Gateway, dimse: Dimse, study: list[Dataset]) -> None:
    uid, nowhere = str(study[0].StudyInstanceUID), "1.2.3.4.5"
    key = ("QueryRetrieveLevel=STUDY", "PatientName")
    assert len((await dimse.find(*key, f"StudyInstanceUID={uid}", title="ANNA"))[0]) == 1
    assert (await dimse.find(*key, f"StudyInstanceUID={uid}", title="BEN"))[0] == []
    taken: list[Any] = []
    got: dict[tuple[str, str], Any] = {}

    def take(event: Any) -> int:
        taken.append(event.request.AffectedSOPInstanceUID)
        return 0

    for title, one in (("ANNA", uid), ("BEN", uid), ("BEN", nowhere)):
        taken.clear()
        answer, _ = await asyncio.to_thread(_get, dimse, title, _identifier("STUDY", StudyInstanceUID=one), take)
        got[title, one] = (answer.to_json(), len(taken))
    assert got["ANNA", uid][1] == SLICES
    assert got["BEN", uid] == got["BEN", nowhere]
    assert got["BEN", uid][1] == 0
    with storescp(dimse.folder) as (port, target):
        dimse.account("DEST", frozenset(), port=port, institution="inst-b")
        said = {}
        for title, one in (("ANNA", uid), ("BEN", uid), ("BEN", nowhere)):
            keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={one}")
            _, output = await dimse.tool(
                "movescu", "-S", "-v", "-aem", "DEST", *keys, "127.0.0.1", str(dimse.port), title=title
            )
            said[title, one] = [line for line in output.splitlines() if "Final Move" in line]
        assert "MoveDestinationUnknown" in said["ANNA", uid][0]  # images of A do not go to B
        assert said["BEN", uid] == said["BEN", nowhere]
        assert list(target.iterdir()) == []


@pytest.mark.requirement("PS3.4 C.4.3.1.4: B000H and A702H, sub-operations that failed")
async def test_failed_sub_operations_are_told(dimse: Dimse, study: list[Dataset]) -> None:
    query = _identifier("STUDY", StudyInstanceUID=str(study[0].StudyInstanceUID))
    bad = str(study[1].SOPInstanceUID)

    def take(event: Any) -> int:
        return 0xA700 if event.request.AffectedSOPInstanceUID == bad else 0

    answer, listed = await asyncio.to_thread(_get, dimse, "ANNA", query, take)
    assert answer.Status == 0xB000
    assert (answer.NumberOfCompletedSuboperations, answer.NumberOfFailedSuboperations) == (SLICES - 1, 1)
    assert listed is not None
    assert listed.FailedSOPInstanceUIDList == bad
    answer, _ = await asyncio.to_thread(_get, dimse, "ANNA", query, lambda _: 0xA700)
    assert answer.Status == 0xA702
    assert answer.NumberOfFailedSuboperations == SLICES


@pytest.mark.requirement("PS3.4 C.4.3.1.4: FE00H, C-CANCEL of a C-GET")
async def test_cancel_is_honoured(dimse: Dimse, study: list[Dataset]) -> None:
    query = _identifier("STUDY", StudyInstanceUID=str(study[0].StudyInstanceUID))
    taken: list[str] = []

    def take(event: Any) -> int:
        taken.append(event.request.AffectedSOPInstanceUID)
        event.assoc.send_c_cancel(1, query_model=StudyRootQueryRetrieveInformationModelGet)
        time.sleep(0.3)
        return 0

    answer, _ = await asyncio.to_thread(_get, dimse, "ANNA", query, take)
    assert answer.Status == 0xFE00
    assert len(taken) < SLICES
    assert answer.NumberOfCompletedSuboperations == len(taken)
    assert answer.NumberOfRemainingSuboperations == SLICES - len(taken)


@pytest.mark.requirement("PS3.4 C.2.2.2.4: wildcard matching; C.4.1.1.4: FF01H for keys that are not matched on")
async def test_a_thousand_wildcards(dimse: Dimse, study: list[Dataset]) -> None:
    query = _identifier("STUDY", StudyInstanceUID="", PatientName="SYN*TIC^*", StudyDescription="*" * 60)
    for number in range(1000):
        query.add_new(0x00110000 + 0x1000 + number, "LO", "*" if number % 2 else "*a*a*a*a*b")

    def ask(one: Dataset) -> list[tuple[int, Any]]:
        with _getter(dimse, "ANNA", lambda _: 0) as association:
            found = association.send_c_find(one, StudyRootQueryRetrieveInformationModelFind)
            return [(answer.Status, identifier) for answer, identifier in found]

    answers = await asyncio.to_thread(ask, query)
    assert [code for code, _ in answers] == [0xFF01, 0x0000]
    assert answers[0][1].StudyInstanceUID == study[0].StudyInstanceUID
    many = _identifier("STUDY", StudyInstanceUID="\\".join([f"1.2.{one}" for one in range(999)]))
    many.StudyInstanceUID = [*many.StudyInstanceUID, study[0].StudyInstanceUID]
    assert [code for code, _ in await asyncio.to_thread(ask, many)] == [0xFF00, 0x0000]
    bad = _identifier("STUDY", StudyInstanceUID="", StudyDate="")
    bad.add_new(0x00080020, "LO", "not a date")
    assert [code for code, _ in await asyncio.to_thread(ask, bad)] == [0xA900]


@pytest.mark.requirement("PS3.8 9.2: a peer that is silent or lies about lengths is cut off")
async def test_peers_that_misbehave(dimse: Dimse, study: list[Dataset]) -> None:
    assert dimse.process is not None
    before = psutil.Process(dimse.process.pid).memory_info().rss

    def closed(first: bytes) -> float:
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", dimse.port)) as peer:
            peer.sendall(first)
            peer.settimeout(_PDU_CLOSED_S)
            with contextlib.suppress(ConnectionError):
                while peer.recv(4096):
                    pass
        return time.monotonic() - began

    lying = struct.pack(">BBL", 4, 0, 0xFFFFFFFF)
    half = struct.pack(">BBL", 1, 0, 200) + b"\x00\x01"
    waits = [asyncio.to_thread(closed, one) for one in (b"", half, lying, b"GET / HTTP/1.1\r\n\r\n")]
    running = asyncio.gather(*waits)
    assert (await dimse.tool("echoscu", "127.0.0.1", str(dimse.port), title="ANNA"))[0] == 0
    silent, slow, lied, foreign = await running
    assert max(silent, slow, foreign) < _PDU_CLOSED_S
    assert lied < 3.5  # at once, not when it has been silent for too long
    assert psutil.Process(dimse.process.pid).memory_info().rss - before < 100e6


@pytest.mark.requirement("PS3.8 9.3.4: local limit exceeded")
async def test_associations_are_bounded(dimse: Dimse, study: list[Dataset]) -> None:
    def fill() -> list[bool]:
        caller = AE(ae_title="ANNA")
        caller.add_requested_context("1.2.840.10008.1.1")
        held = [caller.associate("127.0.0.1", dimse.port, ae_title=AET) for _ in range(8)]
        established = [one.is_established for one in held]
        for one in held:
            if one.is_established:
                one.release()
        return established

    established = await asyncio.to_thread(fill)
    assert sum(established) == 6
    assert (await dimse.tool("echoscu", "127.0.0.1", str(dimse.port), title="ANNA"))[0] == 0


@pytest.fixture(scope="module")
def dimse_environment() -> dict[str, str]:
    return {"FORAMEN_DIMSE_MAX_ASSOCIATIONS": "6"}


@pytest.mark.requirement("PS3.7 9.1.1: an association aborted in the middle of an instance leaves nothing")
async def test_an_abort_in_the_middle_leaves_nothing(gateway: Gateway, dimse: Dimse, study: list[Dataset]) -> None:
    one = series(1, seed=72, size=(1500, 1500))[0]
    before = gateway.orthanc.count()

    def send() -> None:
        caller = AE(ae_title="ANNA")
        caller.add_requested_context(MRImageStorage)
        association = caller.associate("127.0.0.1", dimse.port, ae_title=AET, max_pdu=16384)
        sent = 0

        def cut(event: Any) -> None:
            nonlocal sent
            sent += 1
            if sent == 5:
                event.assoc.dul.socket.close()

        association.bind(evt.EVT_PDU_SENT, cut)
        with contextlib.suppress(Exception):
            association.send_c_store(one)

    await asyncio.to_thread(send)
    incoming = dimse.settings.home / "dimse" / "incoming"

    async def empty() -> bool:
        return not list(incoming.iterdir())

    await gateway.until(empty)
    assert gateway.orthanc.count() == before


@contextlib.contextmanager
def _sender(dimse: Dimse) -> Iterator[Any]:
    caller = AE(ae_title="ANNA")
    caller.add_requested_context(MRImageStorage)
    association = caller.associate("127.0.0.1", dimse.port, ae_title=AET)
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def _received(dimse: Dimse) -> list[Path]:
    return list((dimse.settings.home / "dimse" / "incoming").iterdir())


@pytest.mark.requirement("PS3.4 B.2.3: A700H when the disk to receive into is full, and nothing is left")
async def test_there_is_no_room_to_receive(gateway: Gateway, dimse: Dimse, study: list[Dataset]) -> None:
    assert dimse.process is not None
    small, large = series(1, seed=73)[0], series(1, seed=74, size=(1400, 1400))[0]
    before, limits = gateway.orthanc.count(), resource.prlimit(dimse.process.pid, resource.RLIMIT_FSIZE)

    def send(*images: Dataset) -> list[int]:
        with _sender(dimse) as association:
            return [int(association.send_c_store(one).Status) for one in images]

    resource.prlimit(dimse.process.pid, resource.RLIMIT_FSIZE, (1_500_000, limits[1]))
    try:
        # On one association: what came after it is stored, where there is room for that.
        assert await asyncio.to_thread(send, large, small) == [0xA700, 0x0000]
    finally:
        resource.prlimit(dimse.process.pid, resource.RLIMIT_FSIZE, limits)
    assert _received(dimse) == []
    assert gateway.orthanc.count() == before + 1
    assert await asyncio.to_thread(send, large) == [0x0000]


@pytest.mark.requirement("PS3.4 B.2.3: the archive is killed while instances come; what was acknowledged is there")
async def test_the_archive_is_killed_in_the_middle(gateway: Gateway, dimse: Dimse, study: list[Dataset]) -> None:
    images, answers = series(40, seed=75, size=(64, 64)), {}

    def send(images: list[Dataset], killed_at: int = -1) -> None:
        with _sender(dimse) as association:
            for number, one in enumerate(images):
                if number == killed_at:
                    gateway.orthanc.kill()
                answers[str(one.SOPInstanceUID)] = int(association.send_c_store(one).Status)

    await asyncio.to_thread(send, images[:30], 15)
    await asyncio.to_thread(gateway.orthanc.start)
    await asyncio.to_thread(send, images[30:])
    codes = list(answers.values())
    assert codes[:15] == [0x0000] * 15
    assert codes[15:30] == [0xA700] * 15
    assert codes[30:] == [0x0000] * 10
    acknowledged = {uid for uid, code in answers.items() if code == 0}
    query = "SELECT sop_instance_uid FROM dicomweb.instance WHERE study_instance_uid = %s"

    async def shown() -> bool:
        return {row[0] for row in dimse.rows(query, str(images[0].StudyInstanceUID))} == acknowledged

    await gateway.until(shown)
    assert (await dimse.send(*images, title="ANNA"))[0] == 0
    with gateway.orthanc.client() as client:
        question = {"Level": "Instance", "Query": {"StudyInstanceUID": str(images[0].StudyInstanceUID)}}
        assert len(client.post("/tools/find", json=question).json()) == 40


@pytest.mark.requirement("PS3.4 B.2.3: Orthanc's own port does not say success to other pixels under a stored UID")
async def test_the_archives_own_port_refuses_other_pixels(gateway: Gateway, dimse: Dimse, study: list[Dataset]) -> None:
    settings, one = gateway.orthanc.settings, series(1, seed=76)[0]
    target = ("-v", "+sd", "-aec", settings.dicom_aet, "127.0.0.1", str(settings.dicom_port))

    async def send(image: Dataset) -> tuple[int, str]:
        return await run(["storescu", *target, str(dimse.files(image))], dimse.folder)

    before = gateway.orthanc.count()
    assert (await send(one))[0] == 0
    assert (await send(one))[0] == 0  # the same again is the same
    original = one.PixelData
    one.PixelData = bytes(reversed(original))
    status, said = await send(one)
    assert status != 0
    assert "CannotUnderstand" in said
    one.PixelData, one.StudyInstanceUID = original[:-2] + b"\1\1", "1.2.826.0.1.3680043.10.1554.1"
    assert (await send(one))[0] != 0  # nor under the name of another study
    assert gateway.orthanc.count() == before + 1


@pytest.mark.requirement("PS3.8 9.1.5: a sender that stops in the middle of an instance is cut off")
async def test_a_sender_that_stops_leaves_nothing(gateway: Gateway, dimse: Dimse, study: list[Dataset]) -> None:
    before = gateway.orthanc.count()

    def stall() -> bytes:
        caller = AE(ae_title="ANNA")
        caller.add_requested_context(MRImageStorage)
        association = caller.associate("127.0.0.1", dimse.port, ae_title=AET, max_pdu=16384)
        sent, peer = 0, association.dul.socket.socket

        def stop(event: Any) -> None:
            nonlocal sent
            sent += 1
            if sent == 4:
                # The rest of a PDU never comes: its head says it is longer than what follows.
                peer.sendall(struct.pack(">BBL", 4, 0, 16000) + b"\0" * 100)
                event.assoc.dul.kill_dul()

        association.bind(evt.EVT_PDU_SENT, stop)
        sending = threading.Thread(target=association.send_c_store, args=(series(1, seed=77, size=(1500, 1500))[0],))
        sending.daemon = True
        sending.start()
        peer.settimeout(_PDU_CLOSED_S)
        with contextlib.suppress(ConnectionError):
            return bytes(peer.recv(1))
        return b""

    assert await asyncio.to_thread(stall) in (b"", b"\x07")  # ended, or an A-ABORT first

    async def empty() -> bool:
        return not _received(dimse)

    await gateway.until(empty)
    assert gateway.orthanc.count() == before


async def test_commands(dimse: Dimse, monkeypatch: pytest.MonkeyPatch) -> None:
    from foramen.cli import app
    from foramen.kernel.settings import get_settings

    values = {"HOME": dimse.settings.home, "DATABASE_URL": dimse.database_url}
    for name, value in values.items():
        monkeypatch.setenv(f"FORAMEN_{name}", str(value))
    get_settings.cache_clear()
    run = CliRunner().invoke
    try:
        with storescp(dimse.folder, title="CLI") as (port, _):
            added = run(app, ["aet", "add", "CLI", "--rights", "find,get", "--host", "127.0.0.1", "--port", str(port)])
            assert added.exit_code == 0, added.output
            listed = json.loads(run(app, ["aet", "list"]).stdout)
            assert next(one for one in listed if one["ae_title"] == "CLI")["rights"] == ["find", "get"]
            answered = await asyncio.to_thread(run, app, ["aet", "echo", "CLI"])
            assert json.loads(answered.stdout)["answered"] is True
        assert (await asyncio.to_thread(run, app, ["aet", "echo", "CLI"])).exit_code == 1
        assert run(app, ["forward", "add", "r1", "--to", "CLI", "--modality", "mr"]).exit_code == 0
        assert json.loads(run(app, ["forward", "status"]).stdout)[0]["modalities"] == ["MR"]
        assert run(app, ["forward", "remove", "r1"]).exit_code == 0
        assert run(app, ["aet", "remove", "CLI"]).exit_code == 0
        assert run(app, ["aet", "add", "BAD\\NAME"]).exit_code != 0
        assert run(app, ["aet", "add", "X", "--rights", "everything"]).exit_code != 0
    finally:
        get_settings.cache_clear()


def _certificate(folder: Path, name: str) -> tuple[Path, Path]:
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return key, certificate


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.requirement("PS3.15 B.9: BCP 195 TLS secure transport, with the account's own certificate")
async def test_tls(dimse: Dimse, study: list[Dataset]) -> None:
    folder = dimse.folder
    (own_key, own), (peer_key, peer), (other_key, other) = (
        _certificate(folder, one) for one in ("own", "peer", "other")
    )
    (folder / "ca.pem").write_text(peer.read_text() + other.read_text())
    await asyncio.to_thread(dimse.stop)
    dimse.extra |= {
        "FORAMEN_DIMSE_TLS_CERTIFICATE": str(own),
        "FORAMEN_DIMSE_TLS_KEY": str(own_key),
        "FORAMEN_DIMSE_TLS_CA": str(folder / "ca.pem"),
    }
    await asyncio.to_thread(dimse.start)
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(peer.read_text())).hexdigest()
    dimse.account("SECURE", tls_fingerprint=digest, institution="inst-a")
    target = ("127.0.0.1", str(dimse.port))

    async def echo(key: Path, certificate: Path) -> tuple[int, str]:
        tls = ("+tls", str(key), str(certificate), "+cf", str(own))
        return await dimse.tool("echoscu", "-v", *tls, *target, title="SECURE")

    status, said = await echo(peer_key, peer)
    assert status == 0, said
    status, said = await echo(other_key, other)
    assert status != 0
    assert "Calling AE Title Not Recognized" in said, said
    assert (await dimse.tool("echoscu", *target, title="SECURE"))[0] != 0
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection((target[0], dimse.port), 5) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain)


async def test_the_log_names_nobody(dimse: Dimse, study: list[Dataset]) -> None:
    assert "SYNTHETIC" not in dimse.log
    assert "SYN-1" not in dimse.log
    assert "Traceback" not in dimse.log, dimse.log.partition("Traceback")[2][:3000]
