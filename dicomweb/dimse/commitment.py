"""Storage Commitment Push: committed is what the archive holds durably and the index knows, and the asker may see.

The request is a row before it is acknowledged; the report goes out by a new association, and again until it is taken.
DICOM PS3.4 Annex J.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import build_context, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel

from dicomweb.background import work_through
from dicomweb.dimse import status
from dicomweb.dimse.application_entity import ApplicationEntity
from dicomweb.dimse.bridge import Bridge
from dicomweb.dimse.events import ACCESSED, dimse_event
from dicomweb.dimse.outgoing import associated
from dicomweb.dimse.parts import Parts
from dicomweb.dimse.search import search, value_of
from dicomweb.dimse.transfer_syntax import plain_syntaxes
from foramen.kernel.identifiers import new_trace_id

WELL_KNOWN = "1.2.840.10008.1.20.1.1"
_COMMITTED, _WITH_FAILURES = 1, 2
_MOST_ITEMS = 20_000
_CHUNK = 100
_MOST_ATTEMPTS = 12
_IDLE_S = 1.0
_LEASE_S = 300.0
_ADD = """INSERT INTO dicomweb.commitment (ae_title, transaction_uid, items) VALUES ($1, $2, $3)
    ON CONFLICT DO NOTHING"""
_CLAIM = """UPDATE dicomweb.commitment SET attempts = attempts + 1, due_at = now() + make_interval(secs => $1)
    WHERE (ae_title, transaction_uid) = (SELECT ae_title, transaction_uid FROM dicomweb.commitment
        WHERE reported_at IS NULL AND due_at <= now() AND attempts < $2 ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING ae_title, transaction_uid, items, attempts, extract(epoch FROM now() - requested_at)::float8 AS age"""
_LATER = """UPDATE dicomweb.commitment SET due_at = now() + make_interval(secs => $3), last_fault = $4
    WHERE ae_title = $1 AND transaction_uid = $2"""
_REPORTED = """UPDATE dicomweb.commitment SET reported_at = now(), failed_items = $3, last_fault = NULL
    WHERE ae_title = $1 AND transaction_uid = $2"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one request: (class, instance) pairs, and (class, instance, failure reason) triples."""

    committed: list[tuple[str, str]]
    failed: list[tuple[str, str, int]]


class Commitment:
    """Takes requests; see `CommitmentReports` for the answers."""

    def __init__(self, parts: Parts, bridge: Bridge) -> None:
        self._parts, self._bridge = parts, bridge

    def requested(self, event: Any, account: ApplicationEntity) -> tuple[Any, Dataset | None]:
        """N-ACTION: keep the request. A second one with the same Transaction UID changes nothing."""
        if str(event.request.RequestedSOPInstanceUID) != WELL_KNOWN:
            return status.NO_SUCH_SOP_INSTANCE, None
        if event.action_type != 1:
            return 0x0123, None  # No such action type
        try:
            information = event.action_information
            transaction = str(information.TransactionUID)
            items = [
                [str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)]
                for item in information.ReferencedSOPSequence
            ]
        except Exception:  # noqa: BLE001  whatever pydicom raises here is a fault of the peer's bytes
            return status.MISSING_ATTRIBUTE, None
        if not items or len(items) > _MOST_ITEMS or not all(UID(uid).is_valid for pair in items for uid in pair):
            return status.INVALID_ATTRIBUTE_VALUE, None
        if not UID(transaction).is_valid:
            return status.INVALID_ATTRIBUTE_VALUE, None
        self._bridge.run(self._keep(account, transaction, items))
        return status.SUCCESS, None

    async def _keep(self, account: ApplicationEntity, transaction: str, items: list[list[str]]) -> None:
        trace_id, count = new_trace_id(), len(items)
        entry = dimse_event(ACCESSED, "N-ACTION", status=200, trace_id=trace_id, context=account.context, count=count)
        await self._parts.audit.record(entry)
        async with self._parts.database.connection() as connection:
            await connection.execute(_ADD, account.ae_title, transaction, items)


class CommitmentReports:
    """Decides and reports, in the background."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self) -> None:
        """Work through the requests, until cancelled."""
        await work_through("commitment", self.work_once, _IDLE_S, 2 * _IDLE_S)

    async def work_once(self) -> bool:
        """Work on one request that is due; whether there was one."""
        async with self._parts.database.connection() as connection:
            row = await connection.fetchrow(_CLAIM, _LEASE_S, _MOST_ATTEMPTS)
        if row is None:
            return False
        account = await self._parts.accounts.find(row["ae_title"])
        if account is None or "commit" not in account.rights or account.address is None:
            await self._later(row, 600.0, "the account is gone, or cannot be called")
            return True
        verdict = await self._decide(account, [(item[0], item[1]) for item in row["items"]])
        if verdict.failed and row["age"] < self._parts.settings.dimse_commit_wait_s:
            # Stored a moment ago, perhaps: the index and the registration follow within seconds.
            await self._later(row, 1.0, "not all is indexed yet", free=True)
            return True
        if await asyncio.to_thread(self._report, account, row["transaction_uid"], verdict):
            async with self._parts.database.connection() as connection:
                await connection.execute(_REPORTED, row["ae_title"], row["transaction_uid"], len(verdict.failed))
        else:
            await self._later(row, min(5.0 * 2 ** row["attempts"], 3600.0), "the peer did not take the report")
        return True

    async def _later(self, row: Any, wait_s: float, fault: str, *, free: bool = False) -> None:
        async with self._parts.database.connection() as connection:
            await connection.execute(_LATER, row["ae_title"], row["transaction_uid"], wait_s, fault)
            if free:
                query = """UPDATE dicomweb.commitment SET attempts = attempts - 1
                           WHERE ae_title = $1 AND transaction_uid = $2"""
                await connection.execute(query, row["ae_title"], row["transaction_uid"])

    async def _decide(self, account: ApplicationEntity, items: list[tuple[str, str]]) -> Verdict:
        """Ask index and archive for each instance. What the account may not see does not exist for it."""
        verdict = Verdict([], [])
        for start in range(0, len(items), _CHUNK):
            chunk = items[start : start + _CHUNK]
            parameters = [("SOPInstanceUID", ",".join(uid for _, uid in chunk))]
            models = await search(self._parts.qido, account.context, "IMAGE", parameters)
            known = {value_of(model, "00080018"): value_of(model, "00080016") for model in models}
            for sop_class, uid in chunk:
                if uid not in known or not await self._parts.archive.find_instance(uid):
                    verdict.failed.append((sop_class, uid, status.NO_SUCH_SOP_INSTANCE))
                elif known[uid] != sop_class:
                    verdict.failed.append((sop_class, uid, status.CLASS_INSTANCE_CONFLICT))
                else:
                    verdict.committed.append((sop_class, uid))
        return verdict

    def _report(self, account: ApplicationEntity, transaction: str, verdict: Verdict) -> bool:
        """N-EVENT-REPORT by a new association, as SCP of the service (role selection, PS3.4 §J.3.3)."""
        context = build_context(StorageCommitmentPushModel, list(plain_syntaxes()))
        role = build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        with associated(self._parts.settings, account, [context], roles=[role]) as association:
            if association is None:
                return False
            try:
                kind = _WITH_FAILURES if verdict.failed else _COMMITTED
                answer, _ = association.send_n_event_report(
                    report_of(transaction, verdict, self._parts.settings.dimse_aet),
                    kind,
                    StorageCommitmentPushModel,
                    WELL_KNOWN,
                )
            except (ValueError, RuntimeError, AttributeError):
                return False
            return "Status" in answer and int(answer.Status) == status.SUCCESS


def report_of(transaction: str, verdict: Verdict, ae_title: str) -> Dataset:
    """Event information of a report (PS3.4 Table J.3-2)."""
    report = Dataset()
    report.TransactionUID = transaction
    report.RetrieveAETitle = ae_title
    if verdict.committed:
        report.ReferencedSOPSequence = [_item(*pair) for pair in verdict.committed]
    if verdict.failed:
        report.FailedSOPSequence = []
        for sop_class, uid, reason in verdict.failed:
            item = _item(sop_class, uid)
            item.FailureReason = reason
            report.FailedSOPSequence.append(item)
    return report


def _item(sop_class: str, uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = uid
    return item
