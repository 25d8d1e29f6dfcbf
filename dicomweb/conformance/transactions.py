"""What each handler of the table of calls is in the standard. A handler without an entry stops the tests.

DICOM PS3.18 §10 (Studies Service), §11 (Worklist Service), §9 (URI Service).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction.

    Parameters
    ----------
    section : of PS3.18; empty: our own, no part of the standard
    name : as the standard calls it
    scope : SMART scope that admits it
    """

    section: str
    name: str
    scope: str


TRANSACTIONS = {
    "search": Transaction("10.6", "Search", "ImagingStudy.s"),
    "store": Transaction("10.5", "Store", "ImagingStudy.c"),
    "register": Transaction("", "Register", "Task.u"),
    "retrieve": Transaction("10.4", "Retrieve", "ImagingStudy.r"),
    "metadata": Transaction("10.4", "Retrieve Metadata", "ImagingStudy.r"),
    "frames": Transaction("10.4", "Retrieve Frames", "ImagingStudy.r"),
    "bulk_data": Transaction("10.4", "Retrieve Bulkdata", "ImagingStudy.r"),
    "all_bulk_data": Transaction("10.4", "Retrieve Bulkdata", "ImagingStudy.r"),
    "wado_uri": Transaction("9.4", "Retrieve DICOM or Rendered Instance (URI)", "ImagingStudy.r"),
    "rendered": Transaction("10.4", "Retrieve Rendered", "ImagingStudy.r"),
    "reject": Transaction("", "Reject (IHE IOCM)", "ImagingStudy.u"),
    "restore": Transaction("", "Restore what was rejected", "ImagingStudy.u"),
    "delete": Transaction("", "Delete for good", "ImagingStudy.d"),
    "list_rejections": Transaction("", "List rejections", "ImagingStudy.u"),
    "drift": Transaction("", "Report of the reconciliation", "Task.u"),
    "search_workitems": Transaction("11.9", "Search", "Task.s"),
    "create_workitem": Transaction("11.4", "Create", "Task.c"),
    "retrieve_workitem": Transaction("11.5", "Retrieve", "Task.r"),
    "update_workitem": Transaction("11.6", "Update", "Task.u"),
    "change_workitem_state": Transaction("11.7", "Change State", "Task.u"),
    "request_cancellation": Transaction("11.8", "Request Cancellation", "Task.u"),
    "subscribe": Transaction("11.10", "Subscribe", "Task.r"),
    "unsubscribe": Transaction("11.11", "Unsubscribe", "Task.r"),
    "suspend": Transaction("11.12", "Suspend Global Subscription", "Task.r"),
}
"""By handler. A handler that is not here is described by its name alone, never left out."""


def transaction_of(handler: str) -> Transaction:
    """Return what a handler is."""
    return TRANSACTIONS.get(handler, Transaction("", handler.replace("_", " ").capitalize(), ""))
