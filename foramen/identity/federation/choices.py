"""The buttons of the sign-in page: one for each provider that is enabled."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from foramen.identity.federation.providers import list_providers


def sign_in_choices(connection: Connection, page: Callable[[str], str], language: str) -> list[dict[str, str]]:
    """Return name and address of each button.

    Parameters
    ----------
    page : makes the address of a page of this sign-in
    """
    return [
        {"name": provider.name(language), "page": page(f"federation/{provider.id}/start")}
        for provider in list_providers(connection, enabled=True)
    ]
