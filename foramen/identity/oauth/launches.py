"""Launch tokens of the EHR launch: single use, bound to client, user and patient, five minutes.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#launch-app-ehr-launch
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, delete, select

from foramen.identity import tables
from foramen.identity.database import utc_now
from foramen.identity.opaque_tokens import digest, new_opaque_token

LAUNCH_LIFETIME = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Launch:
    """The context an app is launched with; patient and encounter are logical ids."""

    client_id: str
    account: str
    patient: str
    encounter: str | None = None
    intent: str | None = None
    need_patient_banner: bool = True
    smart_style_url: str | None = None
    fhir_context: list[dict[str, str]] | None = None

    def parameters(self) -> dict[str, Any]:
        """Return what the token response tells of the launch beside the patient."""
        optional = {
            "encounter": self.encounter,
            "intent": self.intent,
            "smart_style_url": self.smart_style_url,
            "fhirContext": self.fhir_context,
        }
        told: dict[str, Any] = {"need_patient_banner": self.need_patient_banner}
        return told | {name: value for name, value in optional.items() if value}


_FIELDS = (
    *("client_id", "account", "patient", "encounter", "intent", "need_patient_banner"),
    *("smart_style_url", "fhir_context"),
)


def create_launch(connection: Connection, launch: Launch) -> str:
    """Store a launch and return its token."""
    token = new_opaque_token()
    values = {name: getattr(launch, name) for name in _FIELDS}
    connection.execute(
        tables.launch.insert().values(launch_digest=digest(token), expires_at=utc_now() + LAUNCH_LIFETIME, **values)
    )
    return token


def find_launch(connection: Connection, token: str, client_id: str) -> Launch | None:
    """Return an unused launch of this client, without using it up."""
    columns = tables.launch.c
    row = connection.execute(
        select(*(columns[name] for name in _FIELDS)).where(
            columns.launch_digest == digest(token),
            columns.client_id == client_id,
            columns.used_at.is_(None),
            columns.expires_at > utc_now(),
        )
    ).one_or_none()
    return Launch(*row) if row else None


def use_launch(connection: Connection, token: str, client_id: str, account: str) -> Launch | None:
    """Use a launch up and return it; None when it is used, over, or meant for another client or user."""
    columns, now = tables.launch.c, utc_now()
    row = connection.execute(
        delete(tables.launch)  # whose record somebody opened is in the audit, and no longer here
        .where(
            columns.launch_digest == digest(token),
            columns.client_id == client_id,
            columns.account == account,
            columns.used_at.is_(None),
            columns.expires_at > now,
        )
        .returning(*(columns[name] for name in _FIELDS))
    ).one_or_none()
    return Launch(*row) if row else None
