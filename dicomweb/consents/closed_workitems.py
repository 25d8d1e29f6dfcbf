"""Which Tasks and orders are about studies that are open to a caller: each tells of a study, and whose it is.

R4 has Task in no patient's compartment, so the record's Consents do not hide it; the gateway hides the workitem of a
study that it hides (DICOM PS3.18 §11 leaves access to the server).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from dicomweb.database import Database
from dicomweb.visibility import Clause
from foramen.kernel.access_context import AccessContext
from terminology import systems

_URN = "urn:oid:"


class _Limit(Protocol):
    async def clauses(self, context: AccessContext, action: str | None) -> Sequence[Clause]: ...


class OpenWorkitems:
    """Leaves out the Tasks about studies that a limit hides."""

    def __init__(self, database: Database, closed: _Limit) -> None:
        self._database, self._closed = database, closed

    async def of(self, context: AccessContext, tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the Tasks that may be shown, in their order.

        Raises
        ------
        UpstreamError
            It cannot be known: nothing may be shown.
        """
        about = [(_patient(task), _study(task)) for task in tasks]
        return [tasks[number] for number in await self.open_to(context, about)]

    async def open_to(self, context: AccessContext, about: Sequence[tuple[str | None, str | None]]) -> list[int]:
        """Return the places, from 0, of what may be shown.

        Parameters
        ----------
        about : whose it is (`Patient/id`), and the study it is about or will be, each where it is known

        Raises
        ------
        UpstreamError
            It cannot be known: nothing may be shown.
        """
        clauses = await self._closed.clauses(context, None)
        if not clauses or not about:
            return list(range(len(about)))
        values: list[Any] = [[patient for patient, _ in about], [study for _, study in about]]
        conditions = []
        for clause in clauses:
            first = len(values) + 1
            conditions.append(clause.template.format(*(f"${first + n}" for n in range(len(clause.values)))))
            values += clause.values
        query = f"""SELECT s.number FROM (
                SELECT coalesce(t.patient_ref, d.patient_ref) AS patient_ref, t.study_instance_uid, t.number
                FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS t (patient_ref, study_instance_uid, number)
                LEFT JOIN dicomweb.study d ON d.study_instance_uid = t.study_instance_uid) s
            WHERE {" AND ".join(conditions)} ORDER BY s.number"""  # noqa: S608  our own clauses
        async with self._database.connection() as connection:
            return [row[0] - 1 for row in await connection.fetch(query, *values)]


def _patient(task: dict[str, Any]) -> str | None:
    reference = (task.get("for") or {}).get("reference")
    return reference if isinstance(reference, str) else None


def _study(task: dict[str, Any]) -> str | None:
    group = task.get("groupIdentifier") or {}
    named = group.get("system") == systems.DICOM_UID
    return str(group.get("value", "")).removeprefix(_URN) if named else None
