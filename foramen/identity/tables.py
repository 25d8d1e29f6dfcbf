"""The tables of schema `identity`, as SQLAlchemy Core; `migrations/` makes them and a test compares the two.

https://docs.sqlalchemy.org/en/21/core/metadata.html
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

metadata = MetaData(schema="identity")


def _text(name: str, *, key: bool = False, optional: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=key, nullable=optional and not key)


def _time(name: str, *, optional: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=optional)


account = Table(
    "account",
    metadata,
    _text("name", key=True),
    _text("password_hash"),
    _text("role"),
    _text("practitioner", optional=True),
    _text("patient", optional=True),
    _text("institution", optional=True),
    Column("disabled", Boolean, nullable=False),
    Column("failed_attempts", Integer, nullable=False),
    _time("locked_until", optional=True),
    _time("created_at"),
    _text("user_handle", optional=True),
    Column("code_failures", Integer, nullable=False),
    _time("codes_locked_until", optional=True),
    _time("password_changed_at", optional=True),
    Column("locks", Integer, nullable=False),
    Column("code_locks", Integer, nullable=False),
    _text("created_by", optional=True),
    _text("link_made_by", optional=True),
)
subject = Table("subject", metadata, _text("name", key=True), _text("kind"))
client = Table(
    "client",
    metadata,
    _text("client_id", key=True),
    _text("auth_method"),
    _text("secret_hash", optional=True),
    Column("jwks", JSONB(none_as_null=True)),
    Column("redirect_uris", JSONB, nullable=False),
    _text("launch_url", optional=True),
    _text("scope"),
    _text("name_zh"),
    _text("name_en"),
    Column("first_party", Boolean, nullable=False),
    Column("disabled", Boolean, nullable=False),
    _time("created_at"),
    _text("jwks_uri", optional=True),
    Column("grant_types", JSONB(none_as_null=True)),
    Column("require_pushed", Boolean, nullable=False),
    _text("status"),
    Column("metadata", JSONB, nullable=False),
    _text("registration_digest", optional=True),
    _text("registered_from", optional=True),
    _text("decided_by", optional=True),
    _time("decided_at", optional=True),
)
pushed_request = Table(
    "pushed_request",
    metadata,
    _text("request_uri_digest", key=True),
    _text("client_id"),
    Column("parameters", JSONB, nullable=False),
    _time("expires_at"),
)
session = Table(
    "session",
    metadata,
    _text("session_digest", key=True),
    _text("account"),
    _time("signed_in_at"),
    _time("last_seen_at"),
    _time("expires_at"),
    Column("factors", JSONB, nullable=False),
    _time("authenticated_at", optional=True),
    _text("address", optional=True),
    _text("device", optional=True),
)
partial_sign_in = Table(
    "partial_sign_in",
    metadata,
    _text("sign_in_digest", key=True),
    _text("account"),
    _time("created_at"),
    _time("expires_at"),
)
totp_device = Table(
    "totp_device",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    _text("account"),
    _text("name"),
    _text("sealed_secret"),
    Column("last_step", BigInteger, nullable=False),
    _time("created_at"),
    _time("last_used_at", optional=True),
)
passkey = Table(
    "passkey",
    metadata,
    _text("credential_id", key=True),
    _text("account"),
    _text("name"),
    Column("public_key", LargeBinary, nullable=False),
    Column("sign_count", BigInteger, nullable=False),
    Column("transports", JSONB, nullable=False),
    _text("aaguid"),
    Column("backup_eligible", Boolean, nullable=False),
    Column("backed_up", Boolean, nullable=False),
    _time("created_at"),
    _time("last_used_at", optional=True),
)
passkey_challenge = Table(
    "passkey_challenge",
    metadata,
    _text("challenge_digest", key=True),
    _text("browser_digest"),
    _text("account", optional=True),
    _text("ceremony"),
    _time("expires_at"),
)
recovery_code = Table(
    "recovery_code",
    metadata,
    _text("account", key=True),
    _text("code_digest", key=True),
    _time("used_at", optional=True),
)
failure_budget = Table(
    "failure_budget",
    metadata,
    _text("budget", key=True),
    Column("level", Double, nullable=False),
    _time("counted_at"),
    _time("blocked_until"),
    _time("expires_at"),
)
known_device = Table(
    "known_device",
    metadata,
    _text("device_digest", key=True),
    _text("account", key=True),
    _time("expires_at"),
    Column("failed_attempts", Integer, nullable=False, server_default="0"),
    _time("locked_until", optional=True),
    Column("locks", Integer, nullable=False, server_default="0"),
)
refusal_count = Table(
    "refusal_count",
    metadata,
    _text("network", key=True),
    Column("minute", DateTime(timezone=True), primary_key=True),
    Column("refusals", Integer, nullable=False),
)
launch = Table(
    "launch",
    metadata,
    _text("launch_digest", key=True),
    _text("client_id"),
    _text("account"),
    _text("patient"),
    _text("encounter", optional=True),
    _text("intent", optional=True),
    Column("need_patient_banner", Boolean, nullable=False),
    _time("expires_at"),
    _time("used_at", optional=True),
    _text("smart_style_url", optional=True),
    Column("fhir_context", JSONB(none_as_null=True)),
)
authorization_request = Table(
    "authorization_request",
    metadata,
    _text("request_digest", key=True),
    _text("client_id"),
    Column("parameters", JSONB, nullable=False),
    _text("session_digest", optional=True),
    _text("patient", optional=True),
    Column("consented", JSONB(none_as_null=True)),
    _time("created_at"),
    _time("expires_at"),
    _text("encounter", optional=True),
)
consent = Table(
    "consent",
    metadata,
    _text("account", key=True),
    _text("client_id", key=True),
    _text("asked"),
    _text("agreed"),
    _time("agreed_at"),
    _text("client_digest", optional=True),
)
token_family = Table(
    "token_family",
    metadata,
    Column("family", UUID(as_uuid=True), primary_key=True),
    _text("client_id"),
    _text("account", optional=True),
    _text("session_digest", optional=True),
    _text("scope"),
    Column("launch_context", JSONB, nullable=False),
    _text("nonce", optional=True),
    _time("signed_in_at", optional=True),
    _time("expires_at"),
    _time("revoked_at", optional=True),
    Column("factors", JSONB(none_as_null=True)),
    Column("sid", UUID(as_uuid=True)),
)
app_session = Table(
    "app_session",
    metadata,
    Column("sid", UUID(as_uuid=True), primary_key=True),
    _text("session_digest"),
    _text("client_id"),
    _text("account"),
)
logout_notice = Table(
    "logout_notice",
    metadata,
    Column("jti", UUID(as_uuid=True), primary_key=True),
    Column("sid", UUID(as_uuid=True), nullable=False),
    _text("client_id"),
    _text("account"),
    _time("created_at"),
    Column("attempts", Integer, nullable=False),
    _time("next_attempt_at"),
)
authorization_code = Table(
    "authorization_code",
    metadata,
    _text("code_digest", key=True),
    Column("family", UUID(as_uuid=True), nullable=False),
    _text("redirect_uri"),
    _text("code_challenge"),
    _time("expires_at"),
    _time("used_at", optional=True),
)
refresh_token = Table(
    "refresh_token",
    metadata,
    _text("token_digest", key=True),
    Column("family", UUID(as_uuid=True), nullable=False),
    _time("expires_at"),
    _time("used_at", optional=True),
)
access_token = Table(
    "access_token",
    metadata,
    _text("jti", key=True),
    Column("family", UUID(as_uuid=True), nullable=False),
    _time("expires_at"),
    _time("revoked_at", optional=True),
)
used_assertion = Table(
    "used_assertion",
    metadata,
    _text("client_id", key=True),
    _text("jti", key=True),
    _time("expires_at"),
)
audit_outbox = Table(
    "audit_outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("event", JSONB, nullable=False),
    Column("attempts", Integer, nullable=False),
    _time("next_attempt_at"),
)
institution = Table(
    "institution",
    metadata,
    _text("id", key=True),
    _text("name_zh"),
    _text("name_en"),
    _time("created_at"),
)
permission_change = Table(
    "permission_change",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    _text("account"),
    _text("permission"),
    _text("effect"),
    _time("until", optional=True),
    _text("reason"),
    _text("decided_by"),
    _time("created_at"),
    _time("ended_at", optional=True),
)
delegation = Table(
    "delegation",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    _text("lender"),
    _text("borrower"),
    _text("permission"),
    _time("until"),
    _text("reason"),
    _time("created_at"),
    _time("ended_at", optional=True),
)
launch_trial = Table(
    "launch_trial",
    metadata,
    _text("id", key=True),
    _text("session_digest"),
    _text("state_digest"),
    _text("sealed"),
    Column("revision", Integer, nullable=False),
    _time("created_at"),
    _time("expires_at"),
)
break_glass = Table(
    "break_glass",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    _text("account"),
    _text("institution", optional=True),
    _text("session_digest", optional=True),
    _text("patient"),
    _text("reason_code"),
    _text("reason"),
    _text("address", optional=True),
    _time("started_at"),
    _time("until"),
    _time("ended_at", optional=True),
    _text("ended_by", optional=True),
    _time("reviewed_at", optional=True),
    _text("reviewed_by", optional=True),
    _text("verdict", optional=True),
    _text("note", optional=True),
)
break_glass_alert = Table(
    "break_glass_alert",
    metadata,
    Column("break_glass", UUID(as_uuid=True), primary_key=True),
    _time("created_at"),
    Column("attempts", Integer, nullable=False),
    _time("next_attempt_at", optional=True),
    _time("delivered_at", optional=True),
)
break_glass_token = Table(
    "break_glass_token",
    metadata,
    _text("jti", key=True),
    Column("break_glass", UUID(as_uuid=True), nullable=False),
)
identity_provider = Table(
    "identity_provider",
    metadata,
    _text("id", key=True),
    _text("kind"),
    _text("issuer"),
    _text("client_id", optional=True),
    _text("sealed_secret", optional=True),
    _text("name_zh"),
    _text("name_en"),
    Column("enabled", Boolean, nullable=False),
    Column("settings", JSONB, nullable=False),
    _time("created_at"),
)
federated_account = Table(
    "federated_account",
    metadata,
    _text("issuer", key=True),
    _text("subject", key=True),
    _text("account"),
    Column("managed", Boolean, nullable=False),
    _time("linked_at"),
    _time("last_sign_in_at", optional=True),
)
federation_request = Table(
    "federation_request",
    metadata,
    _text("state_digest", key=True),
    _text("provider"),
    _text("browser_digest"),
    _text("purpose"),
    _text("session_digest", optional=True),
    Column("fresh", Boolean, nullable=False),
    _text("sealed_destination"),
    _time("created_at"),
    _time("expires_at"),
)
federated_session = Table(
    "federated_session",
    metadata,
    _text("session_digest", key=True),
    _text("provider"),
    _text("account"),
    _text("issuer"),
    _text("subject"),
    _text("sid", optional=True),
    _text("sealed_id_token", optional=True),
    Column("factors", JSONB, nullable=False),
    _time("authenticated_at"),
    _time("expires_at"),
)
federation_logout = Table(
    "federation_logout",
    metadata,
    _text("issuer", key=True),
    _text("jti", key=True),
    _text("subject", optional=True),
    _text("sid", optional=True),
    _time("logged_out_at"),
    _time("expires_at"),
)
password_link = Table(
    "password_link",
    metadata,
    _text("account", key=True),
    _text("token_digest"),
    _text("made_by"),
    _time("created_at"),
    _time("expires_at"),
)
