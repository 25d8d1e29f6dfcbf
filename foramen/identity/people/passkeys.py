"""Passkeys (无密码 sign-in): registration and sign-in with discoverable credentials and user verification.

W3C Web Authentication Level 3, §7.1 and §7.2 (https://www.w3.org/TR/webauthn-3/#sctn-rp-operations). A challenge is
good once, for five minutes, and only in the browser it was given to.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from sqlalchemy import Connection, delete, select, update
from webauthn import (
    base64url_to_bytes,
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import bytes_to_base64url
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    CredentialDeviceType,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from foramen.identity import tables
from foramen.identity.opaque_tokens import digest
from foramen.kernel.settings import Settings

CHALLENGE_LIFETIME = timedelta(minutes=5)
MAX_PASSKEYS = 20
MAX_CREDENTIAL_LENGTH = 16 * 1024
_USER_HANDLE_BYTES = 32
_RP_NAME = "Foramen"


@dataclass(frozen=True, slots=True)
class Passkey:
    """A passkey of a person, as the account page shows it."""

    credential_id: str
    name: str
    backed_up: bool
    transports: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None


class PasskeyRefused(Exception):
    """A passkey was not accepted; the reason is for the audit, never for the page."""


def rp_id(settings: Settings) -> str | None:
    """Return the relying party id: the host of our origin; None where browsers allow no passkeys.

    They need a secure context (https, or localhost) and a name: an IP address is no domain (§5.1.3 step 8).
    """
    parts = urlsplit(settings.origin)
    host = parts.hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        local = host == "localhost" or host.endswith(".localhost")
        return host if parts.scheme == "https" or local else None
    return None


def registration_options(
    connection: Connection, settings: Settings, account: str, browser: str, now: datetime
) -> str | None:
    """Return the options of `navigator.credentials.create()` as JSON; None where passkeys cannot be used."""
    party = rp_id(settings)
    if party is None:
        return None
    options = generate_registration_options(
        rp_id=party,
        rp_name=_RP_NAME,
        user_name=account,
        user_id=_user_handle(connection, account),
        challenge=_new_challenge(connection, "create", account, browser, now),
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED,
            user_verification=UserVerificationRequirement.REQUIRED,
        ),
        exclude_credentials=_descriptors(connection, account),
    )
    return options_to_json(options)


def sign_in_options(
    connection: Connection, settings: Settings, account: str | None, browser: str, now: datetime
) -> str | None:
    """Return the options of `navigator.credentials.get()` as JSON; None where passkeys cannot be used.

    Parameters
    ----------
    account : whose passkeys may answer, once the password has shown who it is; None: any discoverable one
    """
    party = rp_id(settings)
    if party is None:
        return None
    options = generate_authentication_options(
        rp_id=party,
        challenge=_new_challenge(connection, "get", account, browser, now),
        allow_credentials=_descriptors(connection, account) if account else None,
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return options_to_json(options)


def register(
    connection: Connection, settings: Settings, account: str, browser: str, credential: str, name: str, now: datetime
) -> None:
    """Check the answer of `create()` and keep the passkey (§7.1).

    Raises
    ------
    PasskeyRefused
        Challenge, origin, flags or signature are not what they have to be, or the passkey is known.
    """
    answer = _parsed(credential)
    challenge, challenged = _use_challenge(connection, "create", answer, browser, now)
    if challenged != account:
        raise PasskeyRefused("challenge")
    try:
        verified = verify_registration_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=rp_id(settings) or "",
            expected_origin=settings.origin,
            require_user_verification=True,
        )
    except _MALFORMED as exc:
        raise PasskeyRefused("registration") from exc
    credential_id = bytes_to_base64url(verified.credential_id)
    known = connection.execute(
        select(tables.passkey.c.account).where(tables.passkey.c.credential_id == credential_id)
    ).scalar()
    if known is not None or len(list_passkeys(connection, account)) >= MAX_PASSKEYS:
        raise PasskeyRefused("known" if known else "too many")
    allowed = {item.value for item in AuthenticatorTransport}
    offered = answer["response"].get("transports")
    connection.execute(
        tables.passkey.insert().values(
            credential_id=credential_id,
            account=account,
            name=name,
            public_key=verified.credential_public_key,
            sign_count=verified.sign_count,
            transports=sorted({str(item) for item in offered} & allowed) if isinstance(offered, list) else [],
            aaguid=verified.aaguid,
            backup_eligible=verified.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
            backed_up=verified.credential_backed_up,
            created_at=now,
        )
    )


def sign_in(connection: Connection, settings: Settings, browser: str, credential: str, now: datetime) -> str:
    """Check the answer of `get()` and return whose passkey it is (§7.2).

    Raises
    ------
    PasskeyRefused
        Challenge, origin, flags, counter or signature are not what they have to be, or the passkey is unknown.
    """
    answer = _parsed(credential)
    challenge, challenged = _use_challenge(connection, "get", answer, browser, now)
    column = tables.passkey.c
    row = connection.execute(
        select(
            column.account, column.public_key, column.sign_count, column.backup_eligible, tables.account.c.user_handle
        )
        .join(tables.account, tables.account.c.name == column.account)
        .where(column.credential_id == str(answer.get("id")))
        .with_for_update(of=tables.passkey)
    ).one_or_none()
    if row is None or challenged not in (None, row.account):
        raise PasskeyRefused("unknown")
    handle = answer["response"].get("userHandle")
    if handle is None and challenged is None:  # §7.2 step 6: without a name the handle has to say who it is
        raise PasskeyRefused("user handle")
    if handle is not None and not hmac.compare_digest(str(handle).rstrip("=").encode(), str(row.user_handle).encode()):
        raise PasskeyRefused("user handle")
    try:
        verified = verify_authentication_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=rp_id(settings) or "",
            expected_origin=settings.origin,
            credential_public_key=row.public_key,
            credential_current_sign_count=row.sign_count,  # one that does not grow may be a cloned authenticator's
            require_user_verification=True,
        )
    except _MALFORMED as exc:
        raise PasskeyRefused("assertion") from exc
    if (verified.credential_device_type is CredentialDeviceType.MULTI_DEVICE) != row.backup_eligible:
        raise PasskeyRefused("backup flags")  # §7.2: backup eligibility never changes
    connection.execute(
        update(tables.passkey)
        .where(column.credential_id == str(answer["id"]))
        .values(sign_count=verified.new_sign_count, backed_up=verified.credential_backed_up, last_used_at=now)
    )
    return str(row.account)


def list_passkeys(connection: Connection, account: str) -> list[Passkey]:
    """Return an account's passkeys, oldest first."""
    column = tables.passkey.c
    rows = connection.execute(
        select(
            column.credential_id,
            column.name,
            column.backed_up,
            column.transports,
            column.created_at,
            column.last_used_at,
        )
        .where(column.account == account)
        .order_by(column.created_at)
    )
    return [Passkey(row[0], row[1], row[2], tuple(row[3]), row[4], row[5]) for row in rows]


# py_webauthn has an error of its own for what it recognises; CBOR, keys and lengths of foreign bytes can raise others.
_MALFORMED = (WebAuthnException, ValueError, TypeError, KeyError, IndexError, AttributeError)


def _parsed(credential: str) -> dict[str, dict[str, object]]:
    """Read what the page's script posted."""
    if len(credential) > MAX_CREDENTIAL_LENGTH:
        raise PasskeyRefused("too long")
    try:
        answer = json.loads(credential)
    except (ValueError, RecursionError) as exc:
        raise PasskeyRefused("not JSON") from exc
    if not isinstance(answer, dict) or not isinstance(answer.get("response"), dict):
        raise PasskeyRefused("not a credential")
    return answer


def _new_challenge(connection: Connection, ceremony: str, account: str | None, browser: str, now: datetime) -> bytes:
    challenge = secrets.token_bytes(32)
    connection.execute(
        tables.passkey_challenge.insert().values(
            challenge_digest=digest(bytes_to_base64url(challenge)),
            browser_digest=digest(browser),
            account=account,
            ceremony=ceremony,
            expires_at=now + CHALLENGE_LIFETIME,
        )
    )
    return challenge


def _use_challenge(
    connection: Connection, ceremony: str, answer: dict[str, dict[str, object]], browser: str, now: datetime
) -> tuple[bytes, str | None]:
    """Take the challenge that an answer names out of the table; it is gone, whatever comes of it."""
    try:
        client_data = json.loads(base64url_to_bytes(str(answer["response"].get("clientDataJSON"))))
        named = str(client_data["challenge"])
        challenge = base64url_to_bytes(named)
    except (*_MALFORMED, RecursionError) as exc:
        raise PasskeyRefused("client data") from exc
    column = tables.passkey_challenge.c
    row = connection.execute(
        delete(tables.passkey_challenge)
        .where(
            column.challenge_digest == digest(named.rstrip("=")),
            column.browser_digest == digest(browser),
            column.ceremony == ceremony,
            column.expires_at > now,
        )
        .returning(column.account)
    ).one_or_none()
    if row is None:
        raise PasskeyRefused("challenge")
    return challenge, row.account


def _descriptors(connection: Connection, account: str) -> list[PublicKeyCredentialDescriptor]:
    return [
        PublicKeyCredentialDescriptor(
            id=base64url_to_bytes(item.credential_id),
            transports=[AuthenticatorTransport(name) for name in item.transports] or None,
        )
        for item in list_passkeys(connection, account)
    ]


def _user_handle(connection: Connection, account: str) -> bytes:
    """Return the account's user handle, random and without personal data (§14.6.1), making it on first use."""
    column = tables.account.c
    connection.execute(
        update(tables.account)
        .where(column.name == account, column.user_handle.is_(None))
        .values(user_handle=bytes_to_base64url(secrets.token_bytes(_USER_HANDLE_BYTES)))
    )
    handle = connection.execute(select(column.user_handle).where(column.name == account)).scalar_one()
    return base64url_to_bytes(str(handle))
