"""C-FIND of the Patient Root and Study Root models: QIDO's matching and QIDO's access, page by page.

DICOM PS3.4 §C.4.1 (C-FIND), §C.6.1, §C.6.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydicom import Dataset
from pynetdicom.sop_class import PatientRootQueryRetrieveInformationModelFind

from dicomweb.dimse import status
from dicomweb.dimse.bridge import Bridge
from dicomweb.dimse.events import QUERY, dimse_event
from dicomweb.dimse.identifier import Asked, answer, asked
from dicomweb.dimse.parts import Parts
from dicomweb.dimse.search import PAGE, search, value_of
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InteropError, InvalidRequestError

_PATIENT_ID, _ISSUER = "00100020", "00100021"
_MOST_IGNORED = 64
Answer = tuple[int | Dataset, Dataset | None]


def root_of(abstract_syntax: str) -> str:
    """First level of a Query/Retrieve model, by its SOP Class UID."""
    patient_root = str(PatientRootQueryRetrieveInformationModelFind).rsplit(".", 1)[0]
    return "PATIENT" if abstract_syntax.startswith(patient_root) else "STUDY"


class Find:
    """Answers C-FIND requests."""

    def __init__(self, parts: Parts, bridge: Bridge) -> None:
        self._parts, self._bridge = parts, bridge

    def answers(self, event: Any, context: AccessContext, trace_id: str) -> Iterator[Answer]:
        """Yield a status with an identifier for each match; the final success is pynetdicom's."""
        outcome = 200
        try:
            query = asked(_identifier(event), root_of(str(event.context.abstract_syntax)))
            pages = _Pages(self._parts, context, query)
            page = self._bridge.run(pages.next())
        except InteropError as error:
            outcome = error.status
            yield self._refused(error, outcome, context, trace_id)
            return
        try:
            self._record(outcome, context, trace_id)
            code = status.PENDING_WITH_IGNORED_KEYS if pages.ignored else status.PENDING
            sent = 0
            while page:
                for model in page:
                    if event.is_cancelled:
                        yield status.CANCEL, None
                        return
                    if sent >= self._parts.settings.dimse_most_answers:
                        yield status.OUT_OF_RESOURCES, None
                        return
                    sent += 1
                    yield code, answer(model, query, self._parts.settings.dimse_aet)
                page = self._bridge.run(pages.next())
        except InteropError as error:
            yield status.failed(error), None

    def _refused(self, error: InteropError, outcome: int, context: AccessContext, trace_id: str) -> Answer:
        try:
            self._record(outcome, context, trace_id)
        except InteropError as fault:
            return status.failed(fault), None
        return status.failed(error), None

    def _record(self, outcome: int, context: AccessContext, trace_id: str) -> None:
        event = dimse_event(QUERY, "C-FIND", status=outcome, trace_id=trace_id, context=context)
        self._bridge.run(self._parts.audit.record(event))


def _identifier(event: Any) -> Dataset:
    try:
        identifier: Dataset = event.identifier
        identifier.decode()
    except Exception as exc:
        # Whatever pydicom raises here is a fault of the peer's bytes, never of ours.
        raise InvalidRequestError("The identifier cannot be read") from exc
    return identifier


class _Pages:
    """The pages of one query. What cannot be matched on is left out once, and said in every answer (FF01H)."""

    def __init__(self, parts: Parts, context: AccessContext, query: Asked) -> None:
        self._parts, self._context, self._level = parts, context, query.level
        self._matching = list(query.matching)
        self._fields = [("includefield", name) for name in query.wanted]
        self.ignored = bool(query.ignored)
        self._offset, self._ended = 0, False
        self._patients: set[tuple[str, str]] = set()

    async def next(self) -> list[dict[str, Any]]:
        """Return the next results; empty at the end."""
        while not self._ended:
            page = await self._page()
            self._offset += PAGE
            self._ended = len(page) < PAGE
            if self._level == "PATIENT":
                page = [model for model in page if self._is_new_patient(model)]
            if page:
                return page
        return []

    async def _page(self) -> list[dict[str, Any]]:
        for _ in range(_MOST_IGNORED):
            try:
                parameters = [*self._matching, *self._fields]
                return await search(self._parts.qido, self._context, self._level, parameters, offset=self._offset)
            except InvalidRequestError as error:
                named = {name for issue in error.issues for name in issue.expression}
                kept = [(name, value) for name, value in self._matching if name not in named or not _is_optional(name)]
                if len(kept) == len(self._matching):
                    raise
                self._matching, self.ignored = kept, True
        raise InvalidRequestError("Too many keys that cannot be matched on")

    def _is_new_patient(self, model: dict[str, Any]) -> bool:
        patient = value_of(model, _PATIENT_ID), value_of(model, _ISSUER)
        if not patient[0] or patient in self._patients:
            return False
        self._patients.add(patient)
        return True


def _is_optional(keyword: str) -> bool:
    """Whether a key may be left out: a date or time that is malformed, or a UID, is the caller's mistake instead."""
    from pydicom.datadict import dictionary_VR

    return dictionary_VR(keyword) not in ("DA", "TM", "DT", "UI")
