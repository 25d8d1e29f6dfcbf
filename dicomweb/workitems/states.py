"""The state machine of a Unified Procedure Step. Pure functions (DICOM PS3.4 §CC.1.1, Tables CC.1.1-2 and CC.2.1-2)."""

from __future__ import annotations

from typing import Any

from dicomweb.workitems.workitem import (
    CANCELED,
    COMPLETED,
    IN_PROGRESS,
    PERFORMED,
    SCHEDULED,
    Model,
    digest_of,
    value_of,
)

MISSING = "The Transaction UID is missing."
INCORRECT = "The Transaction UID is incorrect."
INCONSISTENT = "The submitted request is inconsistent with the state of the UPS Instance."


class Refused(Exception):
    """A request that the state does not allow: HTTP status and the text of the Warning header (PS3.18 §11.7.3)."""

    def __init__(self, status: int, warning: str) -> None:
        super().__init__(warning)
        self.status, self.warning = status, warning


def change(state: str, requested: Any, lock: str | None, transaction_uid: str | None) -> str | None:
    """Decide a change of state.

    Parameters
    ----------
    lock : digest of the Transaction UID that the workitem was claimed with, None: it is not claimed by one

    Returns
    -------
    A warning when the workitem is in that state already and nothing is changed; None: the change is to be made.

    Raises
    ------
    Refused
        The change is not allowed.
    """
    if requested not in (IN_PROGRESS, COMPLETED, CANCELED):
        raise Refused(400, INCONSISTENT)  # SCHEDULED comes by creation only (C303), others are not states
    if not transaction_uid:
        raise Refused(400, MISSING)
    if requested == IN_PROGRESS:
        if state != SCHEDULED:
            raise Refused(409, INCONSISTENT)  # C302 in progress already, C300 closed
        return None
    if state == requested:
        return f"The UPS is already in the requested state of {requested}."
    if state != IN_PROGRESS:
        raise Refused(409, INCONSISTENT)  # C310 not in progress yet, C300 closed
    require_lock(lock, transaction_uid)
    return None


def require_lock(lock: str | None, transaction_uid: str | None) -> None:
    """Refuse who did not claim the workitem.

    Raises
    ------
    Refused
        No Transaction UID, or not the one it was claimed with.
    """
    if not transaction_uid:
        raise Refused(400, MISSING)
    if lock != digest_of(transaction_uid):
        raise Refused(400, INCORRECT)


def require_updatable(state: str, lock: str | None, transaction_uid: str | None) -> None:
    """Refuse an update that the state does not allow (PS3.18 §11.6.2, PS3.4 §CC.2.6).

    Raises
    ------
    Refused
        Closed, or claimed by somebody else.
    """
    if state in (COMPLETED, CANCELED):
        raise Refused(400, INCONSISTENT)
    if state == IN_PROGRESS:
        require_lock(lock, transaction_uid)
    elif transaction_uid:
        raise Refused(409, "The target URI did not reference a claimed Workitem.")


def require_final(model: Model, requested: str) -> None:
    """Refuse to complete a workitem that does not say what was performed (final state codes of PS3.4 Table CC.2.5-3).

    Raises
    ------
    Refused
        Required attributes are absent (C304).
    """
    if requested != COMPLETED:
        return
    performed = value_of(model, PERFORMED)
    said = performed if isinstance(performed, dict) else {}
    with_value = ("00404028", "00404019", "00404050", "00404051")  # station, workitem code, start, end
    if "00404033" not in said or any(value_of(said, tag) is None for tag in with_value):
        raise Refused(409, INCONSISTENT)


_PRIORITIES = ("HIGH", "MEDIUM", "LOW")
_READINESS = ("INCOMPLETE", "UNAVAILABLE", "READY")


def fault_of_new(model: Model) -> str | None:
    """Keyword of the first attribute that a new workitem must have otherwise (N-CREATE column of Table CC.2.5-3)."""
    if value_of(model, "00081195") is not None:
        return "TransactionUID"
    if value_of(model, "00741000") != SCHEDULED:
        return "ProcedureStepState"
    if value_of(model, "00741200") not in _PRIORITIES:
        return "ScheduledProcedureStepPriority"
    if value_of(model, "00404041") not in _READINESS:
        return "InputReadinessState"
    if not value_of(model, "00741204"):
        return "ProcedureStepLabel"
    if not value_of(model, "00404005"):
        return "ScheduledProcedureStepStartDateTime"
    return "ProcedureStepProgressInformationSequence" if value_of(model, "00741002") else None


FIXED = frozenset(
    ("00741000", "00080016", "00080018", "00100010", "00100020", "00100021", "00100030", "00100040", "0020000D")
)
"""What an update may not change (Table CC.2.5-3: "Not allowed")."""
