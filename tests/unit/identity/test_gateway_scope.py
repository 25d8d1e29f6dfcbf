"""The scope of our own gateways is for our own services: not for people, and no other client is registered with it."""

from __future__ import annotations

import pytest

from foramen.identity.oauth.client_checks import check_client
from foramen.identity.oauth.clients import PRIVATE_KEY, PUBLIC, Client
from foramen.identity.oauth.scopes import grant, unknown_scopes
from foramen.kernel.access_context import GATEWAY, parse_scopes
from foramen.kernel.errors import InvalidRequestError

REGISTERED = f"system/Patient.rs {GATEWAY}"


@pytest.mark.parametrize(
    ("registered", "contexts", "granted"),
    [
        (REGISTERED, ("system",), True),
        ("system/Patient.rs", ("system",), False),
        (f"user/*.rs {GATEWAY}", ("user", "patient"), False),
    ],
)
@pytest.mark.parametrize("administrator", [True, False])
def test_who_is_granted_it(registered: str, contexts: tuple[str, ...], granted: bool, administrator: bool) -> None:
    found = grant(
        registered + f" {GATEWAY}", registered, parse_scopes(registered), contexts, administrator=administrator
    )
    assert (GATEWAY in found.split()) == granted


def test_nobody_types_it() -> None:
    assert unknown_scopes(GATEWAY) == [GATEWAY]


@pytest.mark.parametrize("auth_method", [PRIVATE_KEY, PUBLIC])
def test_no_other_client_is_registered_with_it(auth_method: str) -> None:
    uris = ("https://app.example/",)
    client = Client(client_id="outsider", auth_method=auth_method, scope=REGISTERED, redirect_uris=uris)
    with pytest.raises(InvalidRequestError, match="Not a SMART scope"):
        check_client(client)
