"""What each handler of the table of calls is in the standard. A handler without an entry stops the tests.

DICOM PS3.18 §10 (Studies Service), §11 (Worklist Service), §9 (URI Service).
"""

from __future__ import annotations

from dataclasses import dataclass

_JSON, _XML = "application/dicom+json", 'multipart/related; type="application/dicom+xml"'
_DICOM = 'multipart/related; type="application/dicom"'
_OUTCOME = ("application/fhir+json",)


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction.

    Parameters
    ----------
    section : of PS3.18; empty: our own, no part of the standard
    name : as the standard calls it
    scope : SMART scope that admits it
    takes, gives : media types of request and response
    """

    section: str
    name: str
    scope: str
    takes: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()


_WORKITEM = (_JSON, "application/dicom+xml")
TRANSACTIONS = {
    "search": Transaction("10.6", "Search", "ImagingStudy.s", gives=(_JSON, _XML)),
    "store": Transaction(
        "10.5",
        "Store",
        "ImagingStudy.c",
        (
            *(_DICOM, "application/dicom", 'multipart/related; type="application/dicom+json"', _JSON),
            *(_XML, "application/dicom+xml"),
        ),
        (_JSON, "application/dicom+xml"),
    ),
    "register": Transaction("", "Register", "Task.u", gives=("application/json",)),
    "retrieve": Transaction("10.4", "Retrieve", "ImagingStudy.r", gives=(_DICOM,)),
    "metadata": Transaction("10.4", "Retrieve Metadata", "ImagingStudy.r", gives=(_JSON,)),
    "frames": Transaction(
        "10.4", "Retrieve Frames", "ImagingStudy.r", gives=('multipart/related; type="application/octet-stream"',)
    ),
    "bulk_data": Transaction(
        "10.4", "Retrieve Bulkdata", "ImagingStudy.r", gives=('multipart/related; type="application/octet-stream"',)
    ),
    "all_bulk_data": Transaction(
        "10.4", "Retrieve Bulkdata", "ImagingStudy.r", gives=('multipart/related; type="application/octet-stream"',)
    ),
    "wado_uri": Transaction(
        "9.4", "Retrieve DICOM or Rendered Instance (URI)", "ImagingStudy.r", gives=("application/dicom", "image/jpeg")
    ),
    "rendered": Transaction("10.4", "Retrieve Rendered", "ImagingStudy.r", gives=("image/jpeg", "image/png")),
    "search_workitems": Transaction("11.9", "Search", "Task.s", gives=(_JSON, _XML)),
    "create_workitem": Transaction("11.4", "Create", "Task.c", _WORKITEM),
    "retrieve_workitem": Transaction("11.5", "Retrieve", "Task.r", gives=(_JSON, "application/dicom+xml", _XML)),
    "update_workitem": Transaction("11.6", "Update", "Task.u", _WORKITEM),
    "change_workitem_state": Transaction("11.7", "Change State", "Task.u", _WORKITEM),
    "request_cancellation": Transaction("11.8", "Request Cancellation", "Task.u", _WORKITEM),
    "subscribe": Transaction("11.10", "Subscribe", "Task.r"),
    "unsubscribe": Transaction("11.11", "Unsubscribe", "Task.r"),
    "suspend": Transaction("11.12", "Suspend Global Subscription", "Task.r"),
}
"""By handler. A handler that is not here is described by its name alone, never left out."""


def transaction_of(handler: str) -> Transaction:
    """Return what a handler is."""
    return TRANSACTIONS.get(handler, Transaction("", handler.replace("_", " ").capitalize(), ""))
