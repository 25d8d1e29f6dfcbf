"""What may be registered as a client."""

from __future__ import annotations

import pytest

from foramen.identity.oauth.clients import PRIVATE_KEY, PUBLIC, SECRET, Client, check_client
from foramen.kernel.errors import InvalidRequestError


@pytest.mark.parametrize(
    "uri",
    ["https://app.example.org/cb", "http://127.0.0.1:9/cb", "http://localhost/cb", "org.example.app:/callback"],
)
def test_redirect_uris_that_are_safe(uri: str):
    check_client(Client("app", PUBLIC, "openid", (uri,)))


@pytest.mark.parametrize(
    "uri",
    [
        "http://app.example.org/cb",
        "javascript:alert(1)",
        "data:text/html,x",
        "https://a.example/#f",
        "/relative",
        "https:///x",
        "",
    ],
)
def test_redirect_uris_that_are_not(uri: str):
    with pytest.raises(InvalidRequestError):
        check_client(Client("app", PUBLIC, "openid", (uri,)))


@pytest.mark.parametrize(
    "client",
    [
        Client("bad id", SECRET, "openid"),
        Client("app", SECRET, "system/*.all"),
        Client("app", PUBLIC, "openid"),
        Client("app", PRIVATE_KEY, "system/*.rs"),
    ],
)
def test_faulty_registrations(client: Client):
    with pytest.raises(InvalidRequestError):
        check_client(client)


def test_redirect_uri_is_compared_exactly():
    client = Client("app", PUBLIC, "openid", ("https://app.example.org/cb",))
    assert client.check_redirect_uri("https://app.example.org/cb")
    for other in ("https://app.example.org/cb/", "https://app.example.org/cb?x", "https://APP.example.org/cb"):
        assert not client.check_redirect_uri(other)
