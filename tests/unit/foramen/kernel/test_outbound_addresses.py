"""Which addresses we may be sent to."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from foramen.kernel.errors import InvalidRequestError, UpstreamError
from foramen.kernel.outbound_addresses import Limits, fetch_document, is_permitted, parse_networks

LIMITS = Limits(1000, 5)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:4700::6810:84e5"])
def test_public_addresses_are_permitted(address: str):
    assert is_permitted(address, ())


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",  # noqa: S104
        "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001::1",
        # site-local, IPv4-compatible, SRv6, documentation, discard, ORCHIDv2, unassigned; the IANA registries' others
        "fec0::1", "feff:ffff::1", "::10.0.0.1", "5f00::1", "3fff::1", "2001:db8::1", "100::1", "2001:20::1", "4000::1",
        "::ffff:0:10.0.0.1", "64:ff9b:1::1", "192.88.99.1", "192.0.0.8", "198.18.0.1", "198.51.100.1", "203.0.113.1",
        "192.31.196.1", "192.52.193.1", "192.175.48.1", "240.0.0.1",
    ],
)  # fmt: skip
def test_addresses_of_our_own_network_are_not(address: str):
    assert not is_permitted(address, ())


def test_named_networks_are_permitted_and_nothing_beside_them():
    networks = parse_networks("10.0.0.0/8, ::1/128")
    assert is_permitted("10.200.0.1", networks)
    assert is_permitted("::ffff:10.200.0.1", networks)
    assert is_permitted("::1", networks)
    assert not is_permitted("127.0.0.1", networks)
    assert is_permitted("fec0::7", parse_networks("fec0::/10")), "an administrator may name any network"
    with pytest.raises(ValueError, match="host bits"):
        parse_networks("10.0.0.1/8")


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's TLS context for one name, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "SYNTHETIC")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cadata=signed.public_bytes(serialization.Encoding.PEM).decode())


async def test_tls_is_checked_against_the_name_although_we_connect_to_the_address(tmp_path: Path):
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=5\r\nConnection: close\r\n\r\n{}")
        writer.close()

    for name, good in (("localhost", True), ("other.example", False)):
        server, client = certificate(tmp_path, name)
        listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
        port = listener.sockets[0].getsockname()[1]
        networks = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]
        url = f"https://localhost:{port}/keys"
        try:
            if good:
                fetched = await fetch_document(url, LIMITS, networks, tls=client)
                assert (fetched.content, fetched.cache_control) == (b"{}", "max-age=5")
                assert f"host: localhost:{port}".encode() in asked[0].lower()
                with pytest.raises(UpstreamError):
                    await fetch_document(url, LIMITS, networks)  # a certificate that the machine does not trust
            else:
                with pytest.raises(UpstreamError):
                    await fetch_document(url, LIMITS, networks, tls=client)
        finally:
            listener.close()
    assert len(asked) == 1


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "https://127.0.0.1:1/", "https://[::1]:1/", "https://localhost:1/"]
)
async def test_our_own_machine_is_not_asked(url: str):
    with pytest.raises(InvalidRequestError):
        await fetch_document(url, LIMITS, ())
