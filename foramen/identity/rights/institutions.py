"""Institutions: the tenants accounts belong to. The id is the logical id of the institution's Organization.

https://hl7.org/fhir/R4/organization.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from foramen.identity import tables
from foramen.identity.database import transaction, utc_now
from foramen.kernel.errors import InvalidRequestError

_LOGICAL_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Institution:
    """One institution; `id` is the logical id of its Organization."""

    id: str
    name_zh: str
    name_en: str


_COLUMNS = (tables.institution.c.id, tables.institution.c.name_zh, tables.institution.c.name_en)


def save_institution(connection: Connection, institution: Institution) -> None:
    """Create an institution or rename it.

    Raises
    ------
    InvalidRequestError
        The id is no logical id, or a name is missing or too long.
    """
    if not _LOGICAL_ID.fullmatch(institution.id):
        raise InvalidRequestError("An institution is named by the logical id of its Organization")
    names = {"name_zh": institution.name_zh.strip(), "name_en": institution.name_en.strip()}
    if not all(0 < len(name) <= _LONGEST_NAME for name in names.values()):
        raise InvalidRequestError(
            f"An institution has a Chinese and an English name of at most {_LONGEST_NAME} letters"
        )
    statement = insert(tables.institution).values(id=institution.id, created_at=utc_now(), **names)
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=names))


def ensure_institution(database_url: str, logical_id: str, name_zh: str = "", name_en: str = "") -> None:
    """Create or rename an institution; harmless to repeat."""
    with transaction(database_url) as connection:
        save_institution(connection, Institution(logical_id, name_zh or logical_id, name_en or logical_id))


def list_institutions(connection: Connection) -> list[Institution]:
    """Return all institutions, by id."""
    return [Institution(*row) for row in connection.execute(select(*_COLUMNS).order_by(tables.institution.c.id))]


def known_institution(connection: Connection, reference: str | None) -> str | None:
    """Return the id of an institution named by `id` or `Organization/id`; None stays None.

    Raises
    ------
    InvalidRequestError
        There is no such institution.
    """
    if not reference:
        return None
    logical_id = reference.removeprefix("Organization/")
    found = connection.execute(select(tables.institution.c.id).where(tables.institution.c.id == logical_id))
    if found.one_or_none() is None:
        raise InvalidRequestError("There is no such institution: add it first (foramen institution add)")
    return logical_id
