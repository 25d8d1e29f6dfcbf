"""One-time codes of an authenticator app (TOTP): enrolment, confirmation, and each code good once.

RFC 6238 (https://www.rfc-editor.org/rfc/rfc6238; §5.2: a code must not be accepted twice); the URI of the QR code is
https://github.com/google/google-authenticator/wiki/Key-Uri-Format
"""

from __future__ import annotations

import hmac
import unicodedata
import uuid
from dataclasses import dataclass
from datetime import datetime

import pyotp
import segno
from sqlalchemy import Connection, select, update

from foramen.identity import tables
from foramen.identity.opaque_tokens import digest
from foramen.identity.sealed_columns import totp_purpose
from foramen.identity.sealing import DataKeys
from foramen.kernel.errors import InteropError

STEP_S = 30
DIGITS = 6
MAX_DEVICES = 5
ENROLMENT_S = 900
_WINDOW = 1  # one step earlier or later: clocks differ, people type slowly


@dataclass(frozen=True, slots=True)
class TotpDevice:
    """An authenticator app of a person."""

    id: uuid.UUID
    name: str
    created_at: datetime
    last_used_at: datetime | None


def matching_step(secret: str, code: str, now: datetime, last_step: int) -> int | None:
    """Return the time step that `code` belongs to, if it is near `now` and later than any step used before."""
    digits = "".join(character for character in unicodedata.normalize("NFKC", code) if not character.isspace())
    if len(digits) != DIGITS or not digits.isascii() or not digits.isdigit():
        return None
    current, found = int(now.timestamp()) // STEP_S, None
    generator = pyotp.TOTP(secret, digits=DIGITS, interval=STEP_S)
    for step in range(current - _WINDOW, current + _WINDOW + 1):
        if hmac.compare_digest(generator.generate_otp(step), digits) and step > last_step:
            found = step
    return found


def provisioning_uri(secret: str, account: str, issuer: str) -> str:
    """Return the `otpauth:` URI that authenticator apps read."""
    return pyotp.TOTP(secret, digits=DIGITS, interval=STEP_S).provisioning_uri(name=account, issuer_name=issuer)


def qr_svg(uri: str) -> str:
    """Draw a URI as a QR code: an SVG element to stand in the page, without references to anything outside."""
    drawn: str = segno.make_qr(uri, error="m").svg_inline(scale=5, border=4, dark="#13293d", light="#fff")
    return drawn


def new_secret() -> str:
    """Return a new secret of 160 bits in base32 (RFC 4226 §4, R6)."""
    return pyotp.random_base32(32)


def sealed_enrolment(keys: DataKeys, secret: str, account: str, browser: str, now: datetime) -> str:
    """Seal a secret that waits for its first code, for the form of the page that shows it.

    It stays in that browser: were it kept beside the account, who knows the password could plant the one they know.
    """
    return keys.seal(f"{int(now.timestamp())} {secret}".encode(), _enrolment_purpose(account, browser))


def opened_enrolment(keys: DataKeys, sealed: str, account: str, browser: str, now: datetime) -> str | None:
    """Return the secret of a form of ours; None when it is too old, of another browser or not ours."""
    try:
        began, _, secret = keys.unseal(sealed, _enrolment_purpose(account, browser)).decode().partition(" ")
    except InteropError:
        return None
    return secret if 0 <= now.timestamp() - int(began) <= ENROLMENT_S else None


def enrol(
    connection: Connection, keys: DataKeys, account: str, secret: str, code: str, name: str, now: datetime
) -> bool:
    """Keep a secret if `code` is one of its codes, which is used up by it."""
    step = matching_step(secret, code, now, 0)
    if step is None or len(list_devices(connection, account)) >= MAX_DEVICES:
        return False
    device = uuid.uuid4()
    connection.execute(
        tables.totp_device.insert().values(
            id=device,
            account=account,
            name=name,
            sealed_secret=keys.seal(secret.encode(), totp_purpose(account, device)),
            last_step=step,
            created_at=now,
            last_used_at=now,
        )
    )
    return True


def use_code(connection: Connection, keys: DataKeys, account: str, code: str, now: datetime) -> bool:
    """Whether `code` is right for one of the account's devices; a right one is used up."""
    column = tables.totp_device.c
    rows = connection.execute(  # locked: of two requests with the same code one waits and then sees it used
        select(column.id, column.sealed_secret, column.last_step)
        .where(column.account == account)
        .order_by(column.id)
        .with_for_update()
    ).all()
    for row in rows:
        secret = keys.unseal(row.sealed_secret, totp_purpose(account, row.id))
        step = matching_step(secret.decode(), code, now, row.last_step)
        if step is None:
            continue
        values: dict[str, object] = {"last_step": step, "last_used_at": now}
        if not keys.is_current(row.sealed_secret):
            values["sealed_secret"] = keys.seal(secret, totp_purpose(account, row.id))
        connection.execute(update(tables.totp_device).where(column.id == row.id).values(**values))
        return True
    return False


def list_devices(connection: Connection, account: str) -> list[TotpDevice]:
    """Return the devices, oldest first."""
    column = tables.totp_device.c
    rows = connection.execute(
        select(column.id, column.name, column.created_at, column.last_used_at)
        .where(column.account == account)
        .order_by(column.created_at)
    )
    return [TotpDevice(*row) for row in rows]


def _enrolment_purpose(account: str, browser: str) -> str:
    return f"totp-enrolment:{account}:{digest(browser)}"
