"""What there is to pick from: patients and encounters as this person may read them, and registered apps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from foramen.identity import tables
from foramen.identity.endpoints.record_reading import fhir_of, is_synthetic, patient_line
from foramen.identity.environment import Environment
from foramen.identity.oauth.clients import APPROVED, Client, list_clients
from foramen.identity.people.accounts import Account
from foramen.kernel.errors import ForbiddenError, InteropError, InvalidRequestError, NotFoundError

_MOST = 30
_LOGICAL_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
LISTED, NOT_ALLOWED, UNAVAILABLE = "listed", "not-allowed", "unavailable"


@dataclass(frozen=True, slots=True)
class Picks:
    """Lines to choose from; `state` tells an empty list from one that could not be read or may not be."""

    state: str
    lines: tuple[dict[str, Any], ...] = ()


def logical_id(value: str, kind: str) -> str:
    """Return a logical id.

    Raises
    ------
    InvalidRequestError
        It is none.
    """
    found = value.strip().removeprefix(f"{kind}/")
    if not _LOGICAL_ID.fullmatch(found):
        raise InvalidRequestError(f"{kind} is named by its logical id")
    return found


async def patients(env: Environment, account: Account, name: str) -> Picks:
    """Search patients by name with the person's own rights."""
    return await _search(env, account, "Patient", [("name", name)] if name else [], patient_line)


async def encounters(env: Environment, account: Account, patient: str) -> Picks:
    """Return a patient's encounters, newest first."""
    return await _search(env, account, "Encounter", [("patient", patient), ("_sort", "-date")], _encounter_line)


async def _search(env: Environment, account: Account, kind: str, parameters: list[tuple[str, str]], line: Any) -> Picks:
    found: list[dict[str, Any]] = []
    try:
        async with fhir_of(env, account) as fhir:
            async for resource in fhir.search_pages(kind, [*parameters, ("_count", str(_MOST))]):
                found.append(line(resource))
                if len(found) == _MOST:
                    break
    except ForbiddenError:
        return Picks(NOT_ALLOWED)
    except InteropError:
        return Picks(UNAVAILABLE)
    return Picks(LISTED, tuple(found))


def _encounter_line(resource: dict[str, Any]) -> dict[str, Any]:
    kinds = resource.get("type") or [{}]
    kind = kinds[0].get("text") or ((kinds[0].get("coding") or [{}])[0].get("display") or "")
    period = resource.get("period") or {}
    return {
        "id": resource["id"],
        "text": kind,
        "start": str(period.get("start", ""))[:10],
        "status": resource.get("status", ""),
        "synthetic": is_synthetic(resource),
    }


async def check_patient(env: Environment, account: Account, patient: str) -> None:
    """Refuse a patient whom this person cannot see; who may read none may try with any id, and will read nothing.

    Raises
    ------
    InvalidRequestError
        There is no such patient for this person.
    UpstreamError
        The record cannot be read now.
    """
    try:
        async with fhir_of(env, account) as fhir:
            await fhir.read(f"Patient/{patient}")
    except NotFoundError as exc:
        raise InvalidRequestError("There is no such patient") from exc
    except ForbiddenError:
        return


async def check_encounter(env: Environment, account: Account, patient: str, encounter: str) -> None:
    """Refuse an encounter that is not this patient's, as far as this person can see.

    Raises
    ------
    InvalidRequestError
        It is not among the patient's encounters.
    UpstreamError
        The record cannot be read now.
    """
    try:
        async with fhir_of(env, account) as fhir:
            found = await fhir.read(f"Encounter/{encounter}")
    except NotFoundError as exc:
        raise InvalidRequestError("There is no such encounter") from exc
    except ForbiddenError:
        return
    reference = str((found.get("subject") or {}).get("reference", ""))
    if reference != f"Patient/{patient}" and not reference.endswith(f"/Patient/{patient}"):
        raise InvalidRequestError("There is no such encounter")


def apps(connection: Connection) -> list[Client]:
    """Return the clients that may act and that people use: those with a redirect URI."""
    column = tables.client.c
    acting = set(connection.execute(select(column.client_id).where(column.disabled.is_(False))).scalars())
    return [
        client
        for client in list_clients(connection, status=APPROVED)
        if client.client_id in acting and client.redirect_uris
    ]


def services(connection: Connection) -> list[Client]:
    """Return the clients that may get tokens for themselves."""
    column = tables.client.c
    acting = set(connection.execute(select(column.client_id).where(column.disabled.is_(False))).scalars())
    return [
        client
        for client in list_clients(connection, status=APPROVED)
        if client.client_id in acting and client.check_grant_type("client_credentials")
    ]
