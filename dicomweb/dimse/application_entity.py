"""An AE account: who may call, with what rights, and where it can be reached. Pure values.

AE titles: DICOM PS3.5 Table 6.2-1 (VR AE), PS3.8 §9.3.2. What a title claims is checked by address or certificate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from foramen.kernel.access_context import AccessContext, parse_scopes
from foramen.kernel.errors import InvalidRequestError

RIGHTS = ("find", "get", "move", "store", "commit", "mwl", "mpps", "reject")
_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e](?:[\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_SCOPES = {
    "find": "user/ImagingStudy.s",
    "get": "user/ImagingStudy.r",
    "move": "user/ImagingStudy.r",
    "store": "user/ImagingStudy.c",
    "commit": "user/ImagingStudy.s",
    "mwl": "user/ServiceRequest.s",
    "mpps": "user/Procedure.cu",
    "reject": "user/ImagingStudy.u",
}
CLIENT_ID = "dimse"


@dataclass(frozen=True, slots=True)
class ApplicationEntity:
    """One peer.

    Parameters
    ----------
    host, port : where it listens, for C-MOVE, commitment reports and forwarding; None: it cannot be called
    institution : logical id of the Organization whose patients it reaches, where institutions divide the record
    every_institution : no institution bounds it
    any_address : calls are believed from any address, not only from `host`
    tls_fingerprint : SHA-256 of its certificate (64 hexadecimal digits, lower case); calls without it are refused
    """

    ae_title: str
    rights: frozenset[str]
    host: str | None = None
    port: int | None = None
    institution: str | None = None
    every_institution: bool = False
    any_address: bool = False
    use_tls: bool = False
    tls_fingerprint: str | None = None
    active: bool = True

    @property
    def context(self) -> AccessContext:
        """What it may see, in the terms in which every other caller's access is decided."""
        return self._context(" ".join(sorted({_SCOPES[right] for right in self.rights})))

    @property
    def as_reader(self) -> AccessContext:
        """What may be sent to it by a rule of ours: all of its institution's studies, whatever it may ask for."""
        return self._context("user/ImagingStudy.rs")

    def _context(self, text: str) -> AccessContext:
        return AccessContext(
            subject=f"aet:{self.ae_title}",
            client_id=CLIENT_ID,
            scopes=parse_scopes(text),
            scope_text=text,
            institution=self.institution,
            every_institution=self.every_institution,
        )

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port, when it can be called."""
        return (self.host, self.port) if self.host and self.port else None


def require_ae_title(text: str) -> str:
    """Return an AE title, without the spaces that pad it.

    Raises
    ------
    InvalidRequestError
        Empty, longer than 16 characters, or with a backslash or control character.
    """
    title = text.strip(" ")
    if not _TITLE.fullmatch(title):
        raise InvalidRequestError("An AE title has 1 to 16 printable ASCII characters and no backslash")
    return title


def require_rights(text: str) -> frozenset[str]:
    """Return the rights of a list separated by commas.

    Raises
    ------
    InvalidRequestError
        One of them does not exist.
    """
    rights = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not rights <= set(RIGHTS):
        raise InvalidRequestError(f"Rights are {', '.join(RIGHTS)}")
    return rights


def require_fingerprint(text: str) -> str:
    """Return a SHA-256 fingerprint in lower case without colons.

    Raises
    ------
    InvalidRequestError
        It has not 64 hexadecimal digits.
    """
    plain = text.replace(":", "").strip().casefold()
    if not _FINGERPRINT.fullmatch(plain):
        raise InvalidRequestError("A fingerprint is a SHA-256: 64 hexadecimal digits")
    return plain


def require_institution(text: str) -> str:
    """Return the logical id of an Organization.

    Raises
    ------
    InvalidRequestError
        It is none.
    """
    if not _ID.fullmatch(text):
        raise InvalidRequestError("An institution is named by the logical id of its Organization")
    return text
