"""The three grants: authorization code with PKCE, refresh with rotation, client credentials for services.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html, …/backend-services.html; RFC 6749 §4.1, §4.4, §6; RFC 7636
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from authlib.oauth2.rfc6749 import AccessDeniedError, InvalidGrantError, InvalidRequestError, InvalidScopeError, grants
from authlib.oauth2.rfc7636 import CodeChallenge

from foramen.identity.database import utc_now
from foramen.identity.oauth import token_families
from foramen.identity.oauth.app_sessions import open_app
from foramen.identity.oauth.clients import Client
from foramen.identity.oauth.scopes import grant, narrowed, resource_scopes
from foramen.identity.oauth.token_families import Family
from foramen.identity.opaque_tokens import new_opaque_token
from foramen.identity.people.accounts import Account, find_account
from foramen.identity.people.authentication_context import authentication_claims
from foramen.identity.people.second_factor import second_factor_roles
from foramen.identity.people.sessions import live_session, two_factors
from foramen.identity.rights import break_glass_tokens as break_glass
from foramen.identity.rights.break_glass_cases import BreakGlassCase
from foramen.identity.rights.permissions import Rights, rights_of
from foramen.identity.security_event import SUCCESS, SecurityEvent

CLIENT_AUTH_METHODS = ["private_key_jwt", "client_secret_basic", "none"]


class RequiredCodeChallenge(CodeChallenge):  # type: ignore[misc]
    """PKCE for every client, public or confidential, and S256 only (SMART App Launch §PKCE)."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ["S256"]  # noqa: RUF012  Authlib's attribute

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        """Refuse an authorization request without an S256 challenge."""
        data = grant.request.payload.data
        if not data.get("code_challenge"):
            raise InvalidRequestError("Missing 'code_challenge': PKCE is required")
        if data.get("code_challenge_method") != "S256":
            raise InvalidRequestError("The code_challenge_method must be S256")
        super().validate_code_challenge(grant, redirect_uri)


class _Issuing:
    """How every grant makes its token response."""

    request: Any
    server: Any

    def issue(
        self, family: Family, account: Account | None, rights: Rights | None, what: str, *, refreshable: bool = False
    ) -> dict[str, Any]:
        """Sign the tokens of a family, remember them, and leave an audit event; code or refresh token are used up.

        `rights`: the account's, read in this transaction with its row held.
        """
        server, now = self.server, utc_now()
        context = family.launch_context
        if rights is not None and not rights.covers(family.scope):
            token_families.mark_used(server.connection, family)
            raise InvalidGrantError("The rights of the account have changed")
        emergency = self._emergency(family, account, rights, now)
        lifetime_s = rights.lifetime_s(now, server.settings.access_token_s) if rights else None
        if emergency is not None:
            lifetime_s = break_glass.lifetime_s(emergency, now, lifetime_s or server.settings.access_token_s)
        token = server.signer.access_token(
            subject=account.name if account else family.client_id,
            client_id=family.client_id,
            scope=family.scope,
            now=now,
            lifetime_s=lifetime_s,
            patient=context.get("patient"),
            encounter=context.get("encounter"),
            fhir_user=account.fhir_user if account else None,
            institution=account.institution if account else None,
            lenders=rights.lenders if rights else (),
            break_glass=break_glass.claim(emergency) if emergency else None,
            every_institution=rights is not None and rights.manages_institutions,
        )
        response: dict[str, Any] = {
            "access_token": token.text,
            "token_type": "Bearer",
            "expires_in": token.expires_in_s,
            "scope": family.scope,
            **context,
        }
        if account is not None and "openid" in family.scope.split():
            response["id_token"] = server.signer.id_token(
                subject=account.name,
                client_id=family.client_id,
                scope=family.scope,
                now=now,
                access_token=token.text,
                fhir_user=account.fhir_user,
                nonce=family.nonce,
                signed_in_at=family.signed_in_at,
                authentication=authentication_claims(family.factors),
                alg=self.request.client.id_token_algorithm,
                sid=family.sid,
            )
        event = SecurityEvent(
            what=what,
            outcome=SUCCESS,
            account=account.name if account else None,
            client_id=family.client_id,
            fhir_user=account.fhir_user if account else None,
            patient=context.get("patient"),
            address=self.request.address,
            lenders=rights.lenders if rights else (),
            break_glass=str(emergency.id) if emergency else None,
            institutions=(account.institution,) if account and account.institution else (),
        )
        following = token_families.save_issued(
            server.connection,
            family,
            jti=token.jti,
            expires_at=token.expires_at,
            event=event,
            refreshable=refreshable,
        )
        if emergency is not None:
            break_glass.note_token(server.connection, token.jti, emergency)
        if following is not None:
            response["refresh_token"] = following
        return response

    def person_of(self, family: Family) -> Account | None:
        """Return the person of a family, their account held, while they may act and their session goes on.

        Online access ends with the session; offline access has none.
        """
        connection, settings = self.server.connection, self.server.settings
        if family.session_digest is None:
            return find_account(connection, family.account or "", lock=True)
        session = live_session(
            connection,
            family.session_digest,
            utc_now(),
            settings.session_idle_s,
            seen=False,
            two_factor_roles=second_factor_roles(settings),
            lock=True,
        )
        return session.account if session is not None and session.account.name == family.account else None

    def _emergency(
        self, family: Family, account: Account | None, rights: Rights | None, now: datetime
    ) -> BreakGlassCase | None:
        """Return the emergency access that the token carries, if any."""
        if account is None or rights is None:
            return None
        patient = family.launch_context.get("patient")
        return break_glass.carried(self.server.connection, account, rights, family.session_digest, patient, now)


class AuthorizationCodeGrant(_Issuing, grants.AuthorizationCodeGrant):  # type: ignore[misc]
    """Code flow: codes live 60 s, are bound to client, redirect URI and challenge, and are good for one use."""

    TOKEN_ENDPOINT_AUTH_METHODS = CLIENT_AUTH_METHODS

    @staticmethod
    def validate_authorization_redirect_uri(request: Any, client: Client) -> str:
        """Return the redirect URI when it is registered exactly; otherwise nobody is redirected."""
        redirect_uri = request.payload.redirect_uri
        if not redirect_uri or not client.check_redirect_uri(redirect_uri):
            raise InvalidRequestError("The redirect_uri is missing or not registered for this client")
        return str(redirect_uri)

    def generate_authorization_code(self) -> str:
        """Return a new code."""
        return new_opaque_token()

    def create_authorization_response(self, redirect_uri: str, grant_user: Account | None) -> tuple[int, str, Any]:
        """Answer with a code at the registered redirect URI, to which parameters are only added (RFC 6749 §4.1.2).

        With `iss` (RFC 9207 §2). Authlib takes the URI apart and joins it again for each of the two.
        """
        if grant_user is None:
            raise AccessDeniedError(redirect_uri=redirect_uri)
        code = self.generate_authorization_code()
        self.save_authorization_code(code, self.request)
        state = self.request.payload.state
        added = {"code": code, **({"state": state} if state else {}), "iss": self.server.settings.issuer}
        return 302, "", [("Location", f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{urlencode(added)}")]

    def save_authorization_code(self, code: str, request: Any) -> None:
        """Start the token family of this authorization and store its code."""
        agreed = request.authorization
        online = "offline_access" not in agreed.scope.split()
        family = Family(
            client_id=request.client.client_id,
            account=agreed.account.name,
            scope=agreed.scope,
            session_digest=agreed.session.session_digest if online else None,
            launch_context=agreed.launch_context,
            nonce=request.payload.data.get("nonce"),
            signed_in_at=agreed.session.authenticated_at or agreed.session.signed_in_at,
            factors=sorted(agreed.session.factors),
            redirect_uri=request.payload.redirect_uri,
            code_challenge=request.payload.data["code_challenge"],
            sid=open_app(self.server.connection, agreed.session, request.client),
        )
        lifetime = timedelta(seconds=self.server.settings.access_token_s) + 2 * token_families.CODE_LIFETIME
        token_families.save_authorization(self.server.connection, family, lifetime, code)

    def query_authorization_code(self, code: str, client: Client) -> Family | None:
        """Find a code that may still be exchanged by this client; a second use of one revokes what it gave."""
        reading = self._reading = self.server.code_reading(code, client.client_id)
        family: Family | None = reading.family
        if family is None or family.client_id != client.client_id:
            return None
        if reading.used:
            token_families.revoke_family(self.server.connection, family.family)
            return None
        return family if reading.expires_at is not None and reading.expires_at > utc_now() else None

    def authenticate_user(self, authorization_code: Family) -> Account | None:
        """Return the person behind the code, unless disabled or signed out meanwhile."""
        if authorization_code.session_digest is not None and self._reading.session is None:
            return None
        account: Account | None = self._reading.account
        return account

    def create_token_response(self) -> tuple[int, dict[str, Any], Any]:
        """Exchange the code."""
        family: Family = self.request.authorization_code
        account = self.authenticate_user(family)
        if account is None:
            raise InvalidGrantError("The account is not active")
        offered = self.request.client.check_grant_type("refresh_token")
        refreshable = offered and bool({"offline_access", "online_access"} & set(family.scope.split()))
        rights = rights_of(self.server.connection, account, held=True)
        response = self.issue(family, account, rights, self.GRANT_TYPE, refreshable=refreshable)
        return 200, response, self.TOKEN_RESPONSE_HEADER


class RefreshTokenGrant(_Issuing, grants.RefreshTokenGrant):  # type: ignore[misc]
    """Refresh: every use rotates the token, a second use of one revokes the family."""

    TOKEN_ENDPOINT_AUTH_METHODS = CLIENT_AUTH_METHODS

    def authenticate_refresh_token(self, refresh_token: str) -> Family | None:
        """Find a refresh token that may still be used."""
        found = token_families.find_refresh_token(self.server.connection, refresh_token, self.request.client.client_id)
        return found if found is not None and self._found_person(found) else None

    def _found_person(self, family: Family) -> bool:
        self._person = self.person_of(family)
        return self._person is not None or family.session_digest is None

    def _validate_request_client(self) -> Client:
        client = self._public_client_that_does_not_name_itself() or super()._validate_request_client()
        self.request.client = client
        return client

    def _public_client_that_does_not_name_itself(self) -> Client | None:
        """Take the client from its token: RFC 6749 §6 asks no client_id of public clients; `fhirclient` sends none."""
        form = self.request.form
        if {"client_id", "client_assertion"} & set(form) or "authorization" in self.request.headers:
            return None
        owner = token_families.client_of_refresh_token(self.server.connection, form.get("refresh_token", ""))
        client = self.server.query_client(owner) if owner else None
        return client if client is not None and client.check_endpoint_auth_method("none", "token") else None

    def _validate_token_scope(self, token: Family) -> None:
        requested = self.request.payload.scope
        if requested and narrowed(requested, token.scope) is None:
            raise InvalidScopeError()

    def create_token_response(self) -> tuple[int, dict[str, Any], Any]:
        """Rotate: the old token stops, the answer holds the next one; rights follow the account's role of today."""
        family: Family = self.request.refresh_token
        account = self._person
        if account is None:
            raise InvalidGrantError("The account is not active")
        needed = account.role in second_factor_roles(self.server.settings)
        if needed and not two_factors(family.factors or ()):
            raise InvalidGrantError("The account needs a second factor; sign in again")
        asked = self.request.payload.scope or family.scope
        rights = rights_of(self.server.connection, account, held=True)
        administrator = rights.maintains_record and two_factors(family.factors or ())
        scope = grant(
            asked,
            self.request.client.scope,
            rights.scopes,
            ("patient", "user"),
            administrator=administrator,
        )
        response = self.issue(replace(family, scope=scope), account, rights, self.GRANT_TYPE, refreshable=True)
        return 200, response, self.TOKEN_RESPONSE_HEADER


class ClientCredentialsGrant(_Issuing, grants.ClientCredentialsGrant):  # type: ignore[misc]
    """Backend services: `system/` scopes of the registration, no person, no refresh token."""

    TOKEN_ENDPOINT_AUTH_METHODS = ["private_key_jwt", "client_secret_basic"]  # noqa: RUF012  Authlib's attribute

    def create_token_response(self) -> tuple[int, dict[str, Any], Any]:
        """Issue a token for the service itself."""
        client: Client = self.request.client
        requested = self.request.payload.scope
        if not requested:
            raise InvalidRequestError("Missing 'scope'")
        scope = grant(requested, client.scope, resource_scopes(client.scope), ("system",), administrator=True)
        if not scope:
            raise InvalidScopeError()
        family = Family(client_id=client.client_id, account=None, scope=scope)
        lifetime = timedelta(seconds=self.server.settings.access_token_s)
        token_families.save_family(self.server.connection, family, lifetime)
        return 200, self.issue(family, None, None, self.GRANT_TYPE), self.TOKEN_RESPONSE_HEADER
