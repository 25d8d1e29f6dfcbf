"""TLS of DIMSE: the BCP 195 profile (DICOM PS3.15 §B.9): TLS 1.2 or later, forward secrecy, authenticated encryption.

https://www.rfc-editor.org/info/bcp195
"""

from __future__ import annotations

import hashlib
import ssl
from typing import Any

from foramen.kernel.errors import ConflictError
from foramen.kernel.settings import Settings

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the context of the listening port; None: it speaks plain TCP.

    Raises
    ------
    ConflictError
        A certificate without its key, or the reverse, or files that cannot be used.
    """
    if settings.dimse_tls_certificate is None and settings.dimse_tls_key is None:
        return None
    context = _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), settings)
    if settings.dimse_tls_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(settings: Settings) -> ssl.SSLContext:
    """Return the context for calling peers: their certificate must be one that `dimse_tls_ca` vouches for.

    Peers are named by AE title and address, seldom by a host name in the certificate, so the name is not compared.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if settings.dimse_tls_ca is None:
        context.load_default_certs()
    return _loaded(context, settings)


def fingerprint(socket: Any) -> str | None:
    """SHA-256 of the peer's certificate; None when it gave none or the connection is plain."""
    certificate = socket.getpeercert(binary_form=True) if isinstance(socket, ssl.SSLSocket) else None
    return hashlib.sha256(certificate).hexdigest() if certificate else None


def _loaded(context: ssl.SSLContext, settings: Settings) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    try:
        if settings.dimse_tls_certificate is not None and settings.dimse_tls_key is not None:
            context.load_cert_chain(settings.dimse_tls_certificate, settings.dimse_tls_key)
        elif settings.dimse_tls_certificate is not None or settings.dimse_tls_key is not None:
            raise ConflictError("FORAMEN_DIMSE_TLS_CERTIFICATE and FORAMEN_DIMSE_TLS_KEY belong together")
        if settings.dimse_tls_ca is not None:
            context.load_verify_locations(settings.dimse_tls_ca)
    except (OSError, ssl.SSLError) as exc:
        raise ConflictError("The TLS files of DIMSE cannot be used") from exc
    return context
