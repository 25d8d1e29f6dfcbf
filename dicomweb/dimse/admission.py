"""May this caller associate? Called AE title, account, address, certificate; all or nothing (DICOM PS3.8 §7.1.1.9)."""

from __future__ import annotations

import ipaddress
import socket

from dicomweb.dimse.application_entity import ApplicationEntity

CALLING_UNKNOWN = (0x01, 0x01, 0x03)
CALLED_UNKNOWN = (0x01, 0x01, 0x07)
NOT_NOW = (0x02, 0x03, 0x01)


def is_from(account: ApplicationEntity, address: str) -> bool:
    """Whether a call comes from where the account says it is; without a host nothing is believed."""
    if account.any_address:
        return True
    if not account.host:
        return False
    try:
        there = {item[4][0] for item in socket.getaddrinfo(account.host, None, proto=socket.IPPROTO_TCP)}
    except OSError:
        return False
    return _plain(address) in {_plain(str(item)) for item in there}


def is_certified(account: ApplicationEntity, fingerprint: str | None) -> bool:
    """Whether the certificate is the account's, where it has one."""
    return account.tls_fingerprint is None or account.tls_fingerprint == fingerprint


def _plain(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)
