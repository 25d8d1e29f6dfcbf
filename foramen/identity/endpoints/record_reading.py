"""Read the record for the pages: patients and encounters, with the signed-in person's own rights and nothing more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from sqlalchemy import Connection

from foramen.identity.database import utc_now
from foramen.identity.environment import Environment
from foramen.identity.oauth.scopes import grant
from foramen.identity.people.accounts import Account
from foramen.identity.rights import break_glass_tokens as break_glass
from foramen.identity.rights.break_glass import BreakGlassCase
from foramen.identity.rights.permissions import Rights, rights_of
from foramen.identity.rights.roles import PATIENT
from foramen.kernel.errors import InteropError
from foramen.kernel.fhir_client import FhirClient

_CLIENT_ID = "foramen-identity"
_TYPES = ("Patient", "Encounter")


@asynccontextmanager
async def fhir_of(
    env: Environment, account: Account, types: tuple[str, ...] = _TYPES, *, session_digest: str | None = None
) -> AsyncIterator[FhirClient]:
    """Return a client that reads resources of some types, patients and encounters by default, as this person may.

    `session_digest`: the session that looks, for the emergency access that was started in it, if any.
    """

    def work(connection: Connection) -> tuple[Rights, BreakGlassCase | None]:
        rights = rights_of(connection, account)
        return rights, break_glass.carried(connection, account, rights, session_digest, None, utc_now())

    rights, emergency = await env.database.run(work)
    own = account.role == PATIENT
    context = "patient" if own else "user"
    wanted = " ".join(f"{context}/{name}.rs" for name in types)
    token = env.signer.access_token(
        subject=account.name,
        client_id=_CLIENT_ID,
        scope=grant(wanted, wanted, rights.scopes, (context,)),
        now=utc_now(),
        lifetime_s=60,
        patient=account.patient if own else None,
        fhir_user=account.fhir_user,
        institution=account.institution,
        lenders=rights.lenders,
        break_glass=break_glass.claim(emergency) if emergency else None,
        every_institution=rights.manages_institutions,
    )
    http = httpx.AsyncClient(
        headers={"Authorization": f"Bearer {token.text}"}, timeout=10, transport=env.transport, trust_env=False
    )
    async with FhirClient(f"{env.settings.internal_origin}/fhir", http) as fhir:
        yield fhir


async def named_patient(
    env: Environment, account: Account, logical_id: str | None, *, session_digest: str | None = None
) -> dict[str, Any] | None:
    """Return what a page shows of the patient in context: the id alone when the record cannot be read now."""
    if logical_id is None:
        return None
    try:
        async with fhir_of(env, account, session_digest=session_digest) as fhir:
            return patient_line(await fhir.read(f"Patient/{logical_id}") | {"id": logical_id})
    except InteropError:
        return {"id": logical_id, "name": "", "birth_date": "", "synthetic": False}


def patient_line(resource: dict[str, Any]) -> dict[str, Any]:
    """Return what one line shows of a Patient."""
    name = (resource.get("name") or [{}])[0]
    return {
        "id": resource["id"],
        "name": name.get("text") or " ".join([name.get("family", ""), *name.get("given", [])]).strip(),
        "birth_date": resource.get("birthDate", ""),
        "synthetic": is_synthetic(resource),
    }


def is_synthetic(resource: dict[str, Any]) -> bool:
    """Whether a resource is marked as made for tests and shows."""
    return "SYNTHETIC" in [tag.get("code") for tag in resource.get("meta", {}).get("tag", [])]
