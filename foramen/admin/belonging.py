"""To which institutions a person of the record belongs: asked of the FHIR API, before the transaction that needs it.

A Patient belongs to its `managingOrganization`, a Practitioner to the organizations of its `PractitionerRole`s that are
active and not over (https://hl7.org/fhir/R4/practitionerrole.html). Asked with a token of our own service, as
administrators do not read patients; what it says goes into the policy's question and not to the page.
"Belongs nowhere" and "could not be looked up" are different answers.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import date
from typing import Any

import httpx

from foramen.identity.audit_outbox import CLIENT_ID
from foramen.identity.database import utc_now
from foramen.identity.environment import Environment
from foramen.kernel.errors import DeletedError, InteropError, NotFoundError, UpstreamError
from foramen.kernel.fhir_client import FhirClient

_SCOPE = "system/Patient.r system/Practitioner.r system/PractitionerRole.rs"
_ORGANIZATION = re.compile(r"Organization/([A-Za-z0-9\-.]{1,64})")


async def belonging(env: Environment, reference: str) -> frozenset[str] | None:
    """Return the institutions of a ``Patient/ID`` or ``Practitioner/ID``; None: the record has no such person.

    Raises
    ------
    UpstreamError
        The record could not be asked.
    """
    try:
        async with _record(env) as fhir:
            person = await fhir.read(reference)
            if reference.startswith("Patient/"):
                return frozenset(_institutions([person.get("managingOrganization")]))
            roles = await fhir.search("PractitionerRole", [("practitioner", reference)])
    except (NotFoundError, DeletedError):
        return None
    except InteropError as error:
        raise UpstreamError("The person could not be looked up in the record: try again, or leave it out") from error
    today = utc_now().date()
    return frozenset(_institutions(role.get("organization") for role in roles if _holds(role, today)))


@asynccontextmanager
async def _record(env: Environment) -> AsyncIterator[FhirClient]:
    token = env.signer.access_token(
        subject=CLIENT_ID, client_id=CLIENT_ID, scope=_SCOPE, now=utc_now(), lifetime_s=60, every_institution=True
    )
    http = httpx.AsyncClient(
        headers={"Authorization": f"Bearer {token.text}"}, timeout=10, transport=env.transport, trust_env=False
    )
    async with FhirClient(f"{env.settings.internal_origin}/fhir", http) as fhir:
        yield fhir


def _institutions(references: Iterable[Any]) -> Iterable[str]:
    """Ids of Organizations named by a literal reference; what is named otherwise is no proof."""
    for reference in references:
        found = _ORGANIZATION.fullmatch(str((reference or {}).get("reference", "")))
        if found:
            yield found[1]


def _holds(role: dict[str, Any], today: date) -> bool:
    """Whether a PractitionerRole counts today: active, begun and not over; a part of a date counts to its end."""
    period, said = role.get("period") or {}, today.isoformat()
    start, end = str(period.get("start", ""))[:10], str(period.get("end", ""))[:10]
    return role.get("active") is not False and start <= said[: len(start)] and end >= said[: len(end)]
