"""What this installation made itself (segmentations, reports) is a patient's to see once a clinician verified it.

A series belongs to the DiagnosticReport that names it (clinical model §6.3-6.4); the record shows a patient that report
when its `status` says that it was signed. The record is asked for the patient's reports, at most `MAX_AGE_S` ago; when
it cannot be asked the patient is shown nothing (503). https://hl7.org/fhir/R4/diagnosticreport.html
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from dicomweb.visibility import Clause
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InteropError, UpstreamError
from foramen.kernel.fhir_client import FhirClient, next_cursor
from terminology import systems

MAX_AGE_S = 1.0
SIGNED = ("preliminary", "final", "amended", "corrected", "appended")
"""Words of `DiagnosticReport.status` that only a practitioner writes: as the record's own table has them."""
_NAMING = frozenset(
    (
        *(systems.EXTENSION_SEGMENTATION, systems.EXTENSION_STRUCTURED_REPORT),
        *(systems.EXTENSION_KEY_IMAGES, systems.EXTENSION_KEY_OBJECTS),
    )
)
_URN = "urn:oid:"
_PATIENTS = 1024


class ReleasedOutput:
    """The limit of what was not verified (`dicomweb.visibility.Limit`); it is for patients alone."""

    def __init__(self, fhir: FhirClient) -> None:
        self._fhir = fhir
        self._known: OrderedDict[str, tuple[float, tuple[str, ...]]] = OrderedDict()

    async def clauses(self, context: AccessContext, action: str | None) -> Sequence[Clause]:
        """Return what hides unverified series from a patient.

        Raises
        ------
        UpstreamError
            The record cannot be asked: nothing may be shown.
        """
        if not context.is_patient:
            return ()
        released = await self._released(context.patient) if context.patient is not None else ()
        if not released:
            return (Clause("NOT e.own_output", of_series=True),)
        shown = "(NOT e.own_output OR e.series_instance_uid = ANY({}::text[]))"
        return (Clause(shown, (list(released),), of_series=True),)

    def as_of(self, context: AccessContext) -> float:
        """See `dicomweb.visibility.Limit`."""
        if not context.is_patient or context.patient is None:
            return math.inf
        known = self._known.get(context.patient)
        return -math.inf if known is None else known[0]

    async def _released(self, patient: str) -> tuple[str, ...]:
        known = self._known.get(patient)
        if known is not None and time.monotonic() - known[0] < MAX_AGE_S:
            return known[1]
        began = time.monotonic()
        try:
            found = await self._ask(patient)
        except InteropError as exc:
            text = "It cannot be asked now what was released; try again"
            raise UpstreamError(text, headers={"Retry-After": "2"}) from exc
        self._known[patient] = (began, found)
        self._known.move_to_end(patient)
        if len(self._known) > _PATIENTS:
            self._known.popitem(last=False)
        return found

    async def _ask(self, patient: str) -> tuple[str, ...]:
        asked = [("patient", f"Patient/{patient}"), ("status", ",".join(SIGNED)), ("_elements", "extension")]
        series: set[str] = set()
        cursor: str | None = None
        while True:
            more = [("_cursor", cursor)] if cursor else []
            page = await self._fhir.page("DiagnosticReport", [*asked, ("_count", "500"), *more])
            for entry in page.get("entry", ()):
                series |= series_of(entry["resource"])
            cursor = next_cursor(page)
            if cursor is None:
                return tuple(sorted(series))


def series_of(report: dict[str, Any]) -> set[str]:
    """Return the Series Instance UIDs of what was made for a report."""
    named = (item for item in report.get("extension") or () if item.get("url") in _NAMING)
    return {str(item["valueUri"]).removeprefix(_URN) for item in named if item.get("valueUri")}
