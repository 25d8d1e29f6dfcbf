"""Access tokens: RFC 9068, RFC 8725."""

from __future__ import annotations

import base64
import json

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from foramen.kernel.errors import NotAuthenticatedError
from foramen.kernel.tokens import bearer_token
from tests.builders.tokens import KEY, ORIGIN, token, verifier


def test_a_good_token_gives_its_context() -> None:
    context = verifier().verify(token("patient/*.rs launch", patient="p1", fhirUser="Practitioner/1"))
    assert (context.patient, context.practitioner, context.has_scope("launch")) == ("p1", "Practitioner/1", True)


@pytest.mark.parametrize(
    "claims",
    [{"iss": "http://elsewhere"}, {"aud": "http://elsewhere"}, {"sub": None}, {"client_id": 7}, {"exp": "soon"}],
)
def test_foreign_or_broken_claims_are_refused(claims: dict[str, object]) -> None:
    with pytest.raises(NotAuthenticatedError):
        verifier().verify(token("user/*.rs", **claims))


def test_an_expired_token_says_so() -> None:
    with pytest.raises(NotAuthenticatedError) as refused:
        verifier().verify(token("user/*.rs", expires_in=-1))
    assert refused.value.issue_code == "expired"
    assert "invalid_token" in refused.value.headers["WWW-Authenticate"]


def test_a_cached_token_still_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    check, text = verifier(), token("user/*.rs", expires_in=100)
    check.verify(text)
    import time

    later = time.time() + 200
    monkeypatch.setattr("foramen.kernel.tokens.time.time", lambda: later)
    with pytest.raises(NotAuthenticatedError):
        check.verify(text)


def test_another_key_is_refused() -> None:
    with pytest.raises(NotAuthenticatedError):
        verifier().verify(token("user/*.rs", key=ECKey.generate_key("P-256", private=True)))


def test_algorithm_none_and_confusion_are_refused() -> None:
    head, body, _ = token("user/*.rs").split(".")
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "at+jwt"}).encode()).rstrip(b"=").decode()
    public = OctKey.import_key(json.dumps(KEY.as_dict(private=False)))
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    confused = jwt.encode({"alg": "HS256", "typ": "at+jwt"}, claims, public, algorithms=["HS256"])
    for forged in (f"{none}.{body}.", f"{head}.{body}.", confused):
        with pytest.raises(NotAuthenticatedError):
            verifier().verify(forged)


def test_an_id_token_is_no_access_token() -> None:
    claims = {"iss": ORIGIN, "aud": ORIGIN, "sub": "a", "client_id": "b", "exp": 9999999999}
    with pytest.raises(NotAuthenticatedError):
        verifier().verify(jwt.encode({"alg": "ES256", "typ": "JWT"}, claims, KEY, algorithms=["ES256"]))


@pytest.mark.parametrize("header", [None, "", "Basic abc", "Bearer", "Bearer  "])
def test_a_missing_bearer_token_is_asked_for(header: str | None) -> None:
    with pytest.raises(NotAuthenticatedError) as refused:
        bearer_token(header)
    assert refused.value.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_giant_token_is_not_even_parsed() -> None:
    with pytest.raises(NotAuthenticatedError):
        verifier().verify("a" * 10_000)
