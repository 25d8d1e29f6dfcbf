"""Dynamic client registration on Authlib: an app applies, an administrator decides, the app may read, change or
withdraw what it registered.

RFC 7591, RFC 7592; https://hl7.org/fhir/smart-app-launch/STU2.2/client-registration.html

Whatever an app changes waits for approval again, and its tokens stop: an approval is for what the administrator saw.
"""

from __future__ import annotations

import hmac
import time
import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

from authlib.oauth2.rfc6749 import InvalidRequestError as OAuthInvalidRequestError
from authlib.oauth2.rfc6749 import UnauthorizedClientError
from authlib.oauth2.rfc6749.requests import JsonPayload, JsonRequest
from authlib.oauth2.rfc7591 import ClientRegistrationEndpoint
from authlib.oauth2.rfc7591.errors import InvalidSoftwareStatementError
from authlib.oauth2.rfc7592 import ClientConfigurationEndpoint
from sqlalchemy import ColumnElement, Connection, func, select, update

from foramen.identity import tables
from foramen.identity.audit_outbox import record
from foramen.identity.database import utc_now
from foramen.identity.oauth.client_checks import SECRET
from foramen.identity.oauth.client_metadata import SmartClientMetadata, client_of, metadata_of
from foramen.identity.oauth.clients import (
    PENDING,
    REJECTED,
    WITHDRAWN,
    Client,
    find_registration,
    generated_secret_hash,
    stored_values,
)
from foramen.identity.oauth.token_families import revoke_client
from foramen.identity.opaque_tokens import digest, new_opaque_token
from foramen.identity.people.throttling import network_of, spend
from foramen.identity.security_event import SUCCESS, SecurityEvent
from foramen.kernel.errors import NotAuthenticatedError, ThrottledError
from foramen.kernel.settings import Settings

_ADVISORY_LOCK = 0x7591
_HOUR_S = 3600
NO_STORE = [("Cache-Control", "no-store"), ("Pragma", "no-cache")]


class _Payload(JsonPayload):  # type: ignore[misc]
    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data

    @property
    def data(self) -> dict[str, Any]:
        return self._data


class RegistrationRequest(JsonRequest):  # type: ignore[misc]
    """A request to one of the two endpoints, its body read and its bearer token taken out at the edge."""

    def __init__(
        self, method: str, data: dict[str, Any], *, address: str | None, token: str = "", client_id: str = ""
    ) -> None:
        super().__init__(method, "https://localhost/", headers={})
        self.payload = _Payload(data)
        self.address, self.token, self.client_id = address, token, client_id
        self.credential: Any = None
        self.client: Client | None = None


class Registration(ClientRegistrationEndpoint):  # type: ignore[misc]
    """`POST /auth/register`: open to everybody, because nothing comes of it before an administrator approves."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        super().__init__(None, [SmartClientMetadata])
        self._connection, self._settings = connection, settings

    def authenticate_token(self, request: RegistrationRequest) -> Any:
        """No initial access token is asked for (RFC 7591 §3, open registration)."""
        return True

    def get_server_metadata(self) -> dict[str, Any]:
        """None: `SmartClientMetadata` checks scopes and methods itself."""
        return {}

    def extract_client_metadata(self, request: RegistrationRequest) -> dict[str, Any]:
        """Check the metadata."""
        return _extract(self, request)

    def generate_client_id(self, request: RegistrationRequest) -> str:
        """Return a client id that nobody can guess or choose."""
        return str(uuid.uuid4())

    def generate_client_info(self, request: RegistrationRequest) -> dict[str, Any]:
        """Return what the server adds: the id, and a secret for clients that use one."""
        info: dict[str, Any] = {"client_id": self.generate_client_id(request), "client_id_issued_at": int(time.time())}
        if request.payload.data.get("token_endpoint_auth_method", SECRET) == SECRET:
            info |= {"client_secret": new_opaque_token(), "client_secret_expires_at": 0}
        return info

    def save_client(
        self, client_info: dict[str, Any], client_metadata: dict[str, Any], request: RegistrationRequest
    ) -> Client:
        """Store the registration, waiting for approval."""
        network = network_of(request.address)
        self._throttle(network)
        secret = client_info.get("client_secret")
        client = client_of(
            client_info["client_id"],
            client_metadata,
            secret_hash=generated_secret_hash(secret) if secret else None,
            status=PENDING,
        )
        request.token = new_opaque_token()
        self._connection.execute(
            tables.client.insert().values(
                client_id=client.client_id,
                created_at=utc_now(),
                disabled=False,
                registration_digest=digest(request.token),
                registered_from=network,
                **stored_values(client),
            )
        )
        _audit(self._connection, client, request, "registered")
        return client

    def _throttle(self, network: str | None) -> None:
        """Refuse floods: so many an hour and so many waiting from one network, so many waiting in all.

        One registration at a time.
        """
        columns, settings = tables.client.c, self._settings
        self._connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        here = columns.registered_from.is_not_distinct_from(network) & columns.registration_digest.is_not(None)
        recent, pending = columns.created_at > utc_now() - timedelta(hours=1), columns.status == PENDING
        if self._number(here & recent) >= settings.client_registrations_per_hour:
            raise _too_many("Too many registrations from this address")
        if self._number(here & pending) >= settings.client_registrations_pending_per_address:
            raise _too_many("Too many registrations from this address wait for approval")
        if self._number(pending) >= settings.client_registrations_pending:
            raise _too_many("Too many registrations wait for approval")

    def _number(self, condition: ColumnElement[bool]) -> int:
        count = select(func.count()).select_from(tables.client).where(condition)
        return int(self._connection.execute(count).scalar_one())

    def generate_client_registration_info(self, client: Client, request: RegistrationRequest) -> dict[str, Any]:
        """Return where and with what the client may look after its registration (RFC 7592 §3)."""
        return _management(self._settings, client, request)


def _too_many(message: str) -> ThrottledError:
    return ThrottledError(message, headers={"Retry-After": str(_HOUR_S)})


def count_change(connection: Connection, settings: Settings, address: str | None) -> None:
    """Count a change of a registration, also one that is refused: in a transaction of its own, before it is tried.

    Raises
    ------
    ThrottledError
        The network has had as many in this hour as it may register.
    """
    if not spend(connection, "registration changes", address, utc_now(), settings.client_registrations_per_hour):
        raise _too_many("Too many changes of registrations from this address")


class Configuration(ClientConfigurationEndpoint):  # type: ignore[misc]
    """`/auth/register/{client_id}`: read, replace or withdraw a registration with its registration access token."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        super().__init__(None, [SmartClientMetadata])
        self._connection, self._settings = connection, settings

    def authenticate_token(self, request: RegistrationRequest) -> Any:
        """Return the client whose token it is; it is its own token here (`check_client`).

        Raises
        ------
        NotAuthenticatedError
            Not the token of this client, or no such client: the two look the same.
        """
        columns = tables.client.c
        stored = self._connection.execute(
            select(columns.registration_digest).where(columns.client_id == request.client_id).with_for_update()
        ).scalar_one_or_none()
        client = find_registration(self._connection, request.client_id)
        right = hmac.compare_digest(stored or digest(""), digest(request.token)) and stored is not None
        if not right or client is None or client.status == WITHDRAWN:
            raise NotAuthenticatedError(
                "The registration access token is not valid for this client",
                headers={"WWW-Authenticate": 'Bearer realm="foramen", error="invalid_token"'},
            )
        request.client = client
        return _Own()

    def authenticate_client(self, request: RegistrationRequest) -> Client | None:
        """Return the client of the URL."""
        return request.client

    def check_permission(self, client: Client, request: RegistrationRequest) -> bool:
        """A rejected client may read what became of it, and nothing else."""
        return client.status != REJECTED or request.method == "GET"

    def introspect_client(self, client: Client) -> dict[str, Any]:
        """Describe the registration; the secret is kept as a digest and cannot be repeated."""
        return {"client_id": client.client_id, **metadata_of(client)}

    def generate_client_registration_info(self, client: Client, request: RegistrationRequest) -> dict[str, Any]:
        """Return where and with what the client may look after its registration."""
        return _management(self._settings, client, request)

    def create_update_client_response(self, client: Client, request: RegistrationRequest) -> Any:
        """Check what a client may say of itself, then replace (RFC 7592 §2.2)."""
        if not isinstance(request.payload.data.get("client_secret", ""), str):
            raise OAuthInvalidRequestError("client_secret is text")
        return super().create_update_client_response(client, request)

    def extract_client_metadata(self, request: RegistrationRequest) -> dict[str, Any]:
        """Check the metadata exactly as at registration."""
        return _extract(self, request)

    software_statement_alg_values_supported = None

    def get_server_metadata(self) -> dict[str, Any]:
        """None: `SmartClientMetadata` checks scopes and methods itself."""
        return {}

    def update_client(self, client: Client, client_metadata: dict[str, Any], request: RegistrationRequest) -> Client:
        """Replace the registration; what changed waits for approval again."""
        if client_metadata["token_endpoint_auth_method"] == SECRET and client.secret_hash is None:
            raise UnauthorizedClientError("A client without a secret registers anew to get one")
        secret_hash = client.secret_hash if client_metadata["token_endpoint_auth_method"] == SECRET else None
        changed = client_of(client.client_id, client_metadata, secret_hash=secret_hash, status=client.status)
        if changed == client:
            return client
        if client.status == PENDING:  # An approval is for what the administrator saw.
            raise UnauthorizedClientError("What waits for approval cannot change; withdraw it and register anew")
        changed = replace(changed, status=PENDING)
        self._store(client, stored_values(changed))
        _audit(self._connection, client, request, "changed")
        return changed

    def delete_client(self, client: Client, request: RegistrationRequest) -> None:
        """Withdraw the registration; its row stays for the audit and for the limit of registrations."""
        self._store(client, {"status": WITHDRAWN, "secret_hash": None})
        _audit(self._connection, client, request, "withdrawn")

    def _store(self, client: Client, values: dict[str, Any]) -> None:
        self._connection.execute(
            update(tables.client).where(tables.client.c.client_id == client.client_id).values(**values)
        )
        revoke_client(self._connection, client.client_id)


def _extract(endpoint: Any, request: RegistrationRequest) -> dict[str, Any]:
    if "software_statement" in request.payload.data:  # Authlib takes it out before it checks the rest
        raise InvalidSoftwareStatementError("Software statements are not supported")
    return dict(ClientRegistrationEndpoint.extract_client_metadata(endpoint, request))


class _Own:
    """A registration access token that was found to belong to the client of the URL."""

    def check_client(self, client: Client) -> bool:
        return True


def _management(settings: Settings, client: Client, request: RegistrationRequest) -> dict[str, Any]:
    return {
        "registration_access_token": request.token,
        "registration_client_uri": f"{settings.origin}/auth/register/{client.client_id}",
        "registration_status": client.status,
    }


def _audit(connection: Connection, client: Client, request: RegistrationRequest, reason: str) -> None:
    record(
        connection,
        SecurityEvent(
            "client-registration", SUCCESS, client_id=client.client_id, address=request.address, reason=reason
        ),
    )
