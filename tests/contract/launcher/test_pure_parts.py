"""Requests, shell quoting, tokens and words: what needs no server."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from foramen.kernel.errors import InvalidRequestError
from foramen.kernel.settings import Settings
from foramen.launcher import demonstration, showing, steps, walk
from foramen.launcher.faults import FAULTS
from foramen.launcher.sending import internal_url
from foramen.launcher.steps import HttpRequest, challenge_of
from foramen.launcher.text import LAUNCHER_WORDS
from foramen.launcher.tokens import decode, verify, verify_id_token
from foramen.launcher.trials import MOST_EXCHANGES, Exchange, Trial

KEY = ECKey.generate_key("P-256", parameters={"kid": "k"}, private=True)
OTHER = ECKey.generate_key("P-256", parameters={"kid": "k"}, private=True)
JWKS: Any = KeySet([KEY]).as_dict(private=False)
NOW = 1_800_000_000


def token(key: Any = KEY, **claims: Any) -> str:
    body = {"iss": "https://ehr", "aud": "app", "iat": NOW, "exp": NOW + 60, **claims}
    return jwt.encode({"alg": "ES256", "kid": "k"}, body, key)


def findings(text: str, jwks: Any = JWKS) -> dict[str, bool]:
    return {name: good for name, good, _ in verify(text, jwks, issuer="https://ehr", audience="app", now=NOW)}


def test_the_challenge_is_the_one_of_rfc_7636():
    assert challenge_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_a_good_token_is_found_good():
    assert findings(token()) == dict.fromkeys(("signature", "iss", "aud", "exp", "iat"), True)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (token(OTHER), {"signature"}),
        (token(iss="https://evil"), {"iss"}),
        (token(aud="other"), {"aud"}),
        (token(aud=["other", "app"]), set()),
        (token(exp=NOW - 1), {"exp"}),
        (token(exp="soon"), {"exp"}),
        (token(iat=NOW + 3600), {"iat"}),
        ("eyJhbGciOiJub25lIn0." + token().split(".")[1] + ".", {"signature"}),
        (token()[:-4] + "AAAA", {"signature"}),
    ],
)
def test_what_is_wrong_with_a_token_is_said(text: str, wrong: set[str]):
    assert {name for name, good in findings(text).items() if not good} == wrong


@pytest.mark.parametrize("jwks", [{}, {"keys": []}, {"keys": [{"kty": "EC"}]}, {"keys": 5}, []])
def test_a_key_set_that_is_none_verifies_nothing(jwks: Any):
    assert findings(token(), jwks)["signature"] is False


def test_an_opaque_token_is_no_jwt():
    assert decode("opaque") is None
    assert decode("a.b.c") is None
    assert verify("opaque", JWKS, issuer="", audience="", now=time.time()) == [("signature", False, "not a signed JWT")]


def test_an_id_token_is_bound_to_nonce_and_access_token():
    assert [good for _, good, _ in verify_id_token(token(nonce="n"), nonce="m", access_token="a")] == [False, False]


@given(
    st.dictionaries(
        st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=5),
        st.text(st.characters(min_codepoint=32, max_codepoint=0x4FFF), max_size=20),
        max_size=3,
    ),
    st.text("abcXYZ019._-", min_size=30, max_size=40),
)
def test_a_shell_reads_the_curl_command_as_it_was_meant(form: dict[str, str], secret: str):
    request = HttpRequest("POST", "http://h/p?a=b&c='d'", {"Authorization": f"Bearer {secret}"}, {**form, "z": secret})
    command = request.as_curl({secret: "TOKEN"})
    assert secret not in command
    script = f"curl() {{ printf '%s\\0' \"$@\"; }}\nTOKEN='{secret}'\n{command}"
    read = subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout.decode().split("\0")[:-1]
    sent = [part for name, value in {**form, "z": secret}.items() for part in ("--data-urlencode", f"{name}={value}")]
    assert read == ["-i", "-H", f"Authorization: Bearer {secret}", *sent, "http://h/p?a=b&c='d'"]


@pytest.mark.parametrize(
    "url", ["http://evil.example/auth/token", "http://127.0.0.1:8000.evil.example/", "http://127.0.0.1:8000@evil/", ""]
)
def test_no_other_server_is_asked(url: str):
    with pytest.raises(InvalidRequestError):
        internal_url(Settings(), url)


def test_a_published_url_is_asked_where_our_processes_reach_it():
    settings = Settings(public_url="https://ehr.example", internal_url="http://web:8000")
    assert internal_url(settings, "https://ehr.example/auth/token") == "http://web:8000/auth/token"


def shape(words: Any) -> Any:
    """Keys of nested words, and lengths of lists."""
    if isinstance(words, dict):
        return {name: shape(value) for name, value in words.items()}
    return len(words) if isinstance(words, (list, tuple)) else str


def test_both_languages_say_the_same_things():
    assert shape(LAUNCHER_WORDS["zh"]) == shape(LAUNCHER_WORDS["en"])
    for said in LAUNCHER_WORDS.values():
        assert set(said["faults"]) == set(FAULTS)
        assert set(said["step_titles"]) == set(said["step_leads"]) == set(walk.ORDER)
        assert set(said["do"]) == set(walk.ACTIONS)
        assert {account.shows for account in demonstration.ACCOUNTS} <= set(said)
        parameters = steps.authorization_parameters(
            redirect_uri="r", scope="openid", state="s", aud="a", verifier="v", nonce="n", launch="l", consent=True
        )
        assert set(parameters) <= set(said["parameters"])


@pytest.mark.parametrize("fault", list(FAULTS.values()), ids=list(FAULTS))
def test_every_fault_names_its_place_in_a_standard_and_changes_something(fault: Any):
    assert fault.places
    assert all(place.url.startswith("https://") and place.name for place in fault.places)
    right = {"redirect_uri": "r", "code_verifier": "v", "client_id": "c", "state": "s", "scope": "x", "aud": "a"}
    right |= {"code_challenge": "c", "code_challenge_method": "S256"}
    in_the_order = {"replayed-code", "expired-launch", "id-token-as-access-token", "reused-refresh-token"}
    assert (fault.change(right) == right) is (fault.name in in_the_order)


def test_each_answer_is_parsed_once_for_the_whole_page(monkeypatch: pytest.MonkeyPatch):
    """What the tokens of a trial are is asked once, not for each card: a long trial must not stall all others."""
    bodies = [f'{{"access_token": "SYNTHETIC-{number:030d}"}}' for number in range(MOST_EXCHANGES)]
    exchanges = [Exchange(walk.PATIENT, "GET", "https://ehr/fhir/Patient/p", answer=body) for body in bodies]
    trial, parsed, real = Trial("t", "openid", "r", "a", exchanges=exchanges), [], showing.json_of

    def counted(exchange: Exchange) -> dict[str, Any]:
        parsed.append(exchange)
        return real(exchange)

    monkeypatch.setattr(showing, "json_of", counted)
    cards = showing.cards_of(trial, LAUNCHER_WORDS["en"])
    assert [card.exchange for card in cards] == exchanges
    assert len(parsed) == MOST_EXCHANGES
    assert all("SYNTHETIC-00000000000000000000" not in card.answer for card in cards)
