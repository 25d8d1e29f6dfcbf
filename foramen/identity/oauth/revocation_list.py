"""A verifier that also knows which access tokens were revoked, a second or two after it happened.

RFC 7009 with self-contained tokens: the list of revoked, still living tokens is short and kept in memory.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from foramen.identity.database import IdentityDatabase, utc_now
from foramen.identity.oauth.signing_keys import SigningKeys
from foramen.identity.oauth.token_families import revoked_since
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import NotAuthenticatedError, UpstreamError
from foramen.kernel.log import get_log
from foramen.kernel.tokens import TokenVerifier

# Revocations are read again for this long back: a transaction may become visible after its timestamp.
_OVERLAP = timedelta(seconds=30)


class RevocationAwareVerifier(TokenVerifier):
    """`TokenVerifier` that refuses revoked tokens and follows the signing keys; `watch` keeps both fresh."""

    def __init__(self, keys: SigningKeys, issuer: str, audience: str) -> None:
        super().__init__(keys.key_set(), issuer, audience)
        self._signing_keys = keys

    def refresh_keys(self) -> bool:
        """Take over the keys of a changed key file; whether they differ from those in use."""
        self._signing_keys.refresh()
        found = self._signing_keys.key_set()
        if found is self._keys:
            return False
        self.set_keys(found)
        return True

    def set_revoked(self, token_ids: set[str]) -> None:
        """Replace the list of revoked token ids."""
        self._revoked = token_ids

    _revoked: set[str] = set()  # noqa: RUF012  replaced as a whole, never changed in place

    def verify(self, token: str) -> AccessContext:
        """Verify a token.

        Raises
        ------
        NotAuthenticatedError
            Not valid, or revoked.
        """
        context = super().verify(token)
        if context.token_id in self._revoked:
            raise NotAuthenticatedError(
                "The token was revoked",
                issue_code="expired",
                headers={
                    "WWW-Authenticate": 'Bearer realm="foramen", error="invalid_token", '
                    'error_description="The token was revoked"'
                },
            )
        return context


async def watch(
    verifier: RevocationAwareVerifier, database: IdentityDatabase, longest_token_s: int, pause_s: float = 1.0
) -> None:
    """Keep the list of a verifier fresh until cancelled; while the database is down the last list holds."""
    known: set[str] = set()
    since: datetime = utc_now() - timedelta(seconds=longest_token_s)
    whole_until = utc_now()
    while True:
        began = utc_now()
        try:
            verifier.refresh_keys()
            moment = since
            known |= await database.run(lambda connection: revoked_since(connection, moment))  # noqa: B023
            verifier.set_revoked(set(known))
            since = began - _OVERLAP
            if began - whole_until > timedelta(seconds=longest_token_s):  # drop those that have run out by now
                known, whole_until = set(), began
                since = began - timedelta(seconds=longest_token_s)
        except (UpstreamError, OSError):
            get_log().warning("revocations not readable", part="identity")
        await asyncio.sleep(pause_s)
