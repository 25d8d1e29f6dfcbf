"""pynetdicom's events and what answers them. Each is the edge of a thread: it knows the account or refuses.

DICOM PS3.7 §8 (services), PS3.8 §7.1 (association).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.sop_class import ModalityWorklistInformationFind

from dicomweb.dimse import status
from dicomweb.dimse.admission import CALLED_UNKNOWN, CALLING_UNKNOWN, NOT_NOW, is_certified, is_from
from dicomweb.dimse.application_entity import ApplicationEntity
from dicomweb.dimse.bridge import Bridge
from dicomweb.dimse.commitment import Commitment
from dicomweb.dimse.contexts import contexts_for
from dicomweb.dimse.events import IMPORT, SECURITY_ALERT, dimse_event
from dicomweb.dimse.find import Find
from dicomweb.dimse.operation import Operation
from dicomweb.dimse.parts import Parts
from dicomweb.dimse.passing_on import PassingOn
from dicomweb.dimse.performed_step import PerformedSteps
from dicomweb.dimse.received_file import ReceivedFile, received_file
from dicomweb.dimse.retrieve import Retrieve
from dicomweb.dimse.storing import Storing
from dicomweb.dimse.tls import fingerprint
from dicomweb.dimse.worklist import Worklist
from foramen.kernel.errors import ForbiddenError, InteropError
from foramen.kernel.identifiers import new_trace_id
from foramen.kernel.log import get_log

_NO_RIGHT = ForbiddenError("The AE account has no right to this")


class Services:
    """Binds the services of one process to the events of its server."""

    def __init__(self, parts: Parts, bridge: Bridge, storing: Storing) -> None:
        self._parts, self._bridge, self._storing = parts, bridge, storing
        self._find, self._retrieve = Find(parts, bridge), Retrieve(parts, bridge)
        self._worklist = Worklist(parts, bridge)
        self._commitment, self._steps = Commitment(parts, bridge), PerformedSteps(parts, bridge)

    @property
    def handlers(self) -> list[Any]:
        """Events with their handlers, as pynetdicom takes them."""
        return [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_DATA_RECV, self._received),
            (evt.EVT_DIMSE_RECV, _begin_again),
            (evt.EVT_RELEASED, self._ended),
            (evt.EVT_ABORTED, self._ended),
            (evt.EVT_CONN_CLOSE, self._ended),
            (evt.EVT_C_ECHO, lambda _: status.SUCCESS),
            (evt.EVT_C_FIND, self._on_find),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_N_ACTION, self._guarded("commit", self._commitment.requested)),
            (evt.EVT_N_CREATE, self._guarded("mpps", self._steps.created)),
            (evt.EVT_N_SET, self._guarded("mpps", self._steps.changed)),
        ]

    def _requested(self, event: Any) -> None:
        """Admit or reject, and offer what the account's rights allow."""
        association = event.assoc
        primitive = association.requestor.primitive
        calling, called = str(primitive.calling_ae_title).strip(), str(primitive.called_ae_title).strip()
        association.foramen_stored = {}
        try:
            account = self._bridge.run(self._parts.accounts.find(calling))
            address = str(association.requestor.address_info.address)
            certificate = fingerprint(association.dul.socket.socket)
            if called != self._parts.settings.dimse_aet:
                self._reject(association, CALLED_UNKNOWN, calling)
            elif account is None or not is_from(account, address) or not is_certified(account, certificate):
                self._reject(association, CALLING_UNKNOWN, calling)
            else:
                association.foramen_account, association.foramen_context = account, account.context
                association.acceptor.supported_contexts = list(contexts_for(account.rights))
        except InteropError as error:
            get_log().warning("nobody can be admitted now", reason=error.message)
            association.acse.send_reject(*NOT_NOW)
            association.kill()

    def _reject(self, association: Any, reason: tuple[int, int, int], calling: str) -> None:
        """Reject, with an audit event that names the title claimed where it is one."""
        title = calling if calling.isascii() and calling.isprintable() else None
        entry = dimse_event(
            SECURITY_ALERT, "A-ASSOCIATE", status=403, trace_id=new_trace_id(), context=None, peer=title or "?"
        )
        try:
            self._bridge.run(self._parts.audit.record(entry))
        finally:
            association.acse.send_reject(*reason)
            association.kill()

    def _received(self, event: Any) -> None:
        """End an association that sends more than an instance may have: nothing else bounds a data set."""
        association = event.assoc
        size = getattr(association, "foramen_bytes", 0) + len(event.data)
        association.foramen_bytes = size
        if size > self._parts.settings.dimse_max_instance_bytes and association.dul.socket is not None:
            get_log().warning("an association sent too much", part="dimse")
            association.dul.socket.close()

    def _ended(self, event: Any) -> None:
        """Remove what was half received, and audit what was stored."""
        message = event.assoc.dimse.message
        half = getattr(message, "_data_set_file", None)
        if half is not None:
            half.discard()
        stored: dict[str, list[int]] = getattr(event.assoc, "foramen_stored", {})
        account = getattr(event.assoc, "foramen_account", None)
        while stored and account is not None:
            study, counts = stored.popitem()
            self._record_import(account, study, counts[0])

    def _record_import(self, account: ApplicationEntity, study: str, count: int) -> None:
        try:
            entry = dimse_event(
                IMPORT,
                "C-STORE",
                status=200,
                trace_id=new_trace_id(),
                context=account.context,
                study=study,
                count=count,
            )
            self._bridge.run(self._parts.audit.record(entry))
        except InteropError as error:
            get_log().error("an import cannot be audited", reason=error.message, study_instance_uid=study)

    def _on_find(self, event: Any) -> Iterator[Any]:
        account: ApplicationEntity = event.assoc.foramen_account
        is_worklist = event.context.abstract_syntax == ModalityWorklistInformationFind
        if ("mwl" if is_worklist else "find") not in account.rights:
            return iter([(status.failed(_NO_RIGHT), None)])
        answers = self._worklist.answers if is_worklist else self._find.answers
        return answers(event, account.context, new_trace_id())

    def retrieve(self, association: Any, request: Any, context: Any) -> None:
        """Answer C-GET and C-MOVE."""
        account: ApplicationEntity = association.foramen_account
        operation = Operation(association, request, context)
        if ("get" if operation.service == "C-GET" else "move") not in account.rights:
            operation.fail(_NO_RIGHT)
        elif operation.service == "C-GET":
            self._retrieve.get(operation, account.context, new_trace_id())
        else:
            self._retrieve.move(operation, account, account.context, new_trace_id())

    def _on_store(self, event: Any) -> int:
        request = event.request
        names = (str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID))
        return self.store(event.assoc, received_file(request), *names)

    def begin(self, association: Any, sop_class_uid: str, sop_instance_uid: str) -> PassingOn | None:
        """Return what takes an instance on to the archive while the association receives it."""
        if "store" not in association.foramen_account.rights:
            return None
        return self._storing.begin(sop_class_uid, sop_instance_uid, association.foramen_context)

    def store(self, association: Any, received: ReceivedFile, sop_class_uid: str, sop_instance_uid: str) -> int:
        """Store what an association received; returns the status to answer."""
        account: ApplicationEntity = association.foramen_account
        if "store" not in account.rights:
            received.discard()
            return status.NOT_AUTHORIZED
        stored: dict[str, list[int]] = association.foramen_stored
        code, study = self._storing.store(received, sop_class_uid, sop_instance_uid, association.foramen_context)
        if study is not None:
            if study not in stored:  # The first of each study is in the audit trail before it is acknowledged.
                try:
                    self._begin_import(account, study)
                except InteropError:
                    return status.OUT_OF_RESOURCES
            stored.setdefault(study, [0])[0] += 1
        return code

    def _begin_import(self, account: ApplicationEntity, study: str) -> None:
        context, trace_id = account.context, new_trace_id()
        entry = dimse_event(IMPORT, "C-STORE", status=200, trace_id=trace_id, context=context, study=study)
        self._bridge.run(self._parts.audit.record(entry))

    def _guarded(
        self, right: str, work: Callable[[Any, ApplicationEntity], tuple[Any, Dataset | None]]
    ) -> Callable[[Any], tuple[Any, Dataset | None]]:
        """Call a DIMSE-N service for accounts with the right, and turn its errors into a status."""

        @functools.wraps(work)
        def handler(event: Any) -> tuple[Any, Dataset | None]:
            account: ApplicationEntity = event.assoc.foramen_account
            if right not in account.rights:
                return status.NOT_AUTHORIZED, None
            try:
                return work(event, account)
            except InteropError as error:
                get_log().warning("a service of DIMSE-N failed", reason=error.message)
                return status.PROCESSING_FAILURE, None

        return handler


def _begin_again(event: Any) -> None:
    event.assoc.foramen_bytes = 0
