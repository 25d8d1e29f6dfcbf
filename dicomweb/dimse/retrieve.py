"""C-GET and C-MOVE: what an AE account may see, read from the archive one instance at a time.

DICOM PS3.4 §C.4.2 (C-MOVE), §C.4.3 (C-GET); one instance is in memory at a time.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from pydicom import dcmread

from dicomweb.dimse import status
from dicomweb.dimse.application_entity import ApplicationEntity
from dicomweb.dimse.bridge import Bridge
from dicomweb.dimse.events import BEGIN, TRANSFERRED, dimse_event
from dicomweb.dimse.find import root_of
from dicomweb.dimse.identifier import unique_keys
from dicomweb.dimse.items import Item, readable
from dicomweb.dimse.operation import Operation
from dicomweb.dimse.outgoing import associated
from dicomweb.dimse.parts import Parts
from dicomweb.dimse.search import search_all, value_of
from dicomweb.dimse.transfer_syntax import NoTransferSyntaxError, fitted, proposed
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InteropError, InvalidRequestError
from foramen.kernel.log import get_log

_STUDY = "0020000D"
_MOST = 65535
"""Counts of sub-operations are VR US (PS3.7 Table E.1-1)."""


class Retrieve:
    """Answers C-GET and C-MOVE requests."""

    def __init__(self, parts: Parts, bridge: Bridge) -> None:
        self._parts, self._bridge = parts, bridge

    def get(self, operation: Operation, context: AccessContext, trace_id: str) -> None:
        """C-GET: send over the association on which it was asked."""
        try:
            items = self._items(operation, context)
        except InteropError as error:
            self._refuse(operation, error, context, trace_id)
            return
        self._send(operation, operation.assoc, items, context, trace_id, peer=None)

    def move(self, operation: Operation, caller: ApplicationEntity, context: AccessContext, trace_id: str) -> None:
        """C-MOVE: send to a registered destination."""
        name = str(operation.request.MoveDestination or "").strip()
        try:
            destination = self._bridge.run(self._parts.accounts.find(name))
            if destination is None or destination.address is None or not _may_send(caller, destination):
                self._record("C-MOVE", 404, context, trace_id, None, None, None, TRANSFERRED)
                operation.finish(status.MOVE_DESTINATION_UNKNOWN)
                return
            items = self._items(operation, context)
        except InteropError as error:
            self._refuse(operation, error, context, trace_id)
            return
        if not items:
            self._send(operation, operation.assoc, items, context, trace_id, peer=name)
            return
        contexts = proposed((item.sop_class_uid, item.transfer_syntax_uid) for item in items)
        with associated(self._parts.settings, destination, contexts) as association:
            if association is None:
                self._record("C-MOVE", 503, context, trace_id, None, name, None, TRANSFERRED)
                operation.finish(status.MOVE_DESTINATION_UNKNOWN)
                return
            self._send(operation, association, items, context, trace_id, peer=name)

    def _items(self, operation: Operation, context: AccessContext) -> list[Item]:
        level, keys = unique_keys(operation.identifier(), root_of(operation.abstract_syntax))
        return self._bridge.run(self._visible(level, keys, context))

    async def _visible(self, level: str, keys: dict[str, list[str]], context: AccessContext) -> list[Item]:
        """Return all instances named that the context may read; not there and not permitted are both nothing."""
        if "STUDY" in keys:
            studies = keys["STUDY"]
        else:
            patient = [("PatientID", keys["PATIENT"][0])]
            studies = [
                value_of(model, _STUDY) async for model in search_all(self._parts.qido, context, "STUDY", patient)
            ]
        found: list[Item] = []
        for study in studies:
            if "PATIENT" in keys and not await self._is_of_patient(study, keys["PATIENT"][0], context):
                continue
            found += await readable(self._parts, context, study, keys.get("SERIES"), keys.get("IMAGE"))
            if len(found) > _MOST:
                raise InvalidRequestError(f"More than {_MOST} instances")
        return found

    async def _is_of_patient(self, study: str, patient: str, context: AccessContext) -> bool:
        parameters = [("StudyInstanceUID", study), ("PatientID", patient)]
        return bool([model async for model in search_all(self._parts.qido, context, "STUDY", parameters)])

    def _send(
        self,
        operation: Operation,
        association: Any,
        items: list[Item],
        context: AccessContext,
        trace_id: str,
        peer: str | None,
    ) -> None:
        service, studies, sent = operation.service, sorted({item.study_instance_uid for item in items}), 0
        try:
            for study in studies:
                count = sum(item.study_instance_uid == study for item in items)
                self._record(service, 200, context, trace_id, study, peer, count, BEGIN)
            if not items:
                self._record(service, 404, context, trace_id, None, peer, 0, TRANSFERRED)
        except InteropError as error:
            operation.fail(error)
            return
        operation.begin(len(items))
        try:
            for item in items:
                if operation.is_cancelled:
                    break
                if operation.is_broken_off or not association.is_established:
                    break
                operation.sent(item.sop_instance_uid, self._store(operation, association, item))
                sent += 1
        finally:
            outcome = 200 if sent == len(items) else 503
            for study in studies:
                self._record_end(service, outcome, context, trace_id, study, peer, operation.completed)
        operation.end()

    def _store(self, operation: Operation, association: Any, item: Item) -> int | None:
        """Send one instance; returns the status of the C-STORE, None when it could not be read or sent."""
        try:
            content = self._bridge.run(self._parts.archive.read(item.orthanc_id, keep=False))
            dataset = fitted(dcmread(BytesIO(content)), association.accepted_contexts)
            return operation.store(association, dataset, self._parts.settings.dimse_aet)
        except (InteropError, NoTransferSyntaxError, ValueError, RuntimeError, AttributeError) as error:
            get_log().warning("an instance cannot be sent", reason=type(error).__name__, part=operation.service)
            return None

    def _refuse(self, operation: Operation, error: InteropError, context: AccessContext, trace_id: str) -> None:
        try:
            self._record(operation.service, error.status, context, trace_id, None, None, None, TRANSFERRED)
        except InteropError as fault:
            operation.fail(fault)
            return
        operation.fail(error)

    def _record(
        self,
        service: str,
        outcome: int,
        context: AccessContext,
        trace_id: str,
        study: str | None,
        peer: str | None,
        count: int | None,
        kind: tuple[str, str],
    ) -> None:
        patient = self._bridge.run(self._parts.index.patient_of(study)) if study else None
        entry = dimse_event(
            kind,
            service,
            status=outcome,
            trace_id=trace_id,
            context=context,
            study=study,
            patient=patient,
            peer=peer,
            count=count,
        )
        self._bridge.run(self._parts.audit.record(entry))

    def _record_end(
        self, service: str, outcome: int, context: AccessContext, trace_id: str, study: str, peer: str | None, sent: int
    ) -> None:
        try:
            self._record(service, outcome, context, trace_id, study, peer, sent, TRANSFERRED)
        except InteropError as error:
            # That it began is recorded, and what was sent cannot be taken back.
            get_log().warning("the end of a transfer cannot be audited", reason=error.message)


def _may_send(caller: ApplicationEntity, destination: ApplicationEntity) -> bool:
    """Whether images of one peer's institution may go to another: to its own, or to one that no institution bounds."""
    return caller.every_institution or destination.every_institution or caller.institution == destination.institution
