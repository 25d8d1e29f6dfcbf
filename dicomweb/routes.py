"""ONE table of the gateway's calls: method, path, handler, audit code. QIDO needs ImagingStudy `s`, WADO `r`, STOW `c`.

DICOM PS3.18 Tables 10.3-1 (retrieve), 10.5.1-1 (store), 10.6.1-1 (search).
"""

from __future__ import annotations

from dataclasses import dataclass

_STUDY = "/studies/{study}"
_SERIES = _STUDY + "/series/{series}"
_INSTANCE = _SERIES + "/instances/{instance}"
_WORKITEM = "/workitems/{workitem}"
_SUBSCRIBER = _WORKITEM + "/subscribers/{aetitle}"


@dataclass(frozen=True, slots=True)
class DicomWebRoute:
    """One call: `handler` names a method of `DicomWebService`, `interaction` goes into the AuditEvent."""

    method: str
    path: str
    handler: str
    interaction: str


ROUTES = (
    *(
        DicomWebRoute("GET", path, "search", "search")
        for path in (
            *("/studies", "/series", "/instances", _STUDY + "/series", _STUDY + "/instances"),
            _SERIES + "/instances",
        )
    ),
    *(DicomWebRoute("POST", path, "store", "store") for path in ("/studies", _STUDY)),
    DicomWebRoute("POST", _STUDY + "/register", "register", "register"),
    *(DicomWebRoute("GET", path, "retrieve", "retrieve") for path in (_STUDY, _SERIES, _INSTANCE)),
    *(
        DicomWebRoute("GET", path + "/metadata", "metadata", "retrieve-metadata")
        for path in (_STUDY, _SERIES, _INSTANCE)
    ),
    *(
        DicomWebRoute("GET", f"{path}/{kind}", "rendered", f"retrieve-{kind}")
        for path in (_STUDY, _SERIES, _INSTANCE, _INSTANCE + "/frames/{frames}")
        for kind in ("rendered", "thumbnail")
    ),
    DicomWebRoute("GET", _INSTANCE + "/frames/{frames}", "frames", "retrieve-frames"),
    DicomWebRoute("GET", _INSTANCE + "/bulkdata/{path:path}", "bulk_data", "retrieve-bulkdata"),
    *(
        DicomWebRoute("GET", f"{path}/{kind}", "all_bulk_data", f"retrieve-{kind}")
        for path in (_STUDY, _SERIES, _INSTANCE)
        for kind in ("bulkdata", "pixeldata")
    ),
    DicomWebRoute("GET", "/wado", "wado_uri", "retrieve-uri"),
    *(DicomWebRoute("POST", f"{path}/reject/{{code}}", "reject", "reject") for path in (_STUDY, _SERIES, _INSTANCE)),
    *(DicomWebRoute("POST", f"{path}/restore", "restore", "restore") for path in (_STUDY, _SERIES, _INSTANCE)),
    *(DicomWebRoute("DELETE", path, "delete", "delete") for path in (_STUDY, _SERIES, _INSTANCE)),
    DicomWebRoute("GET", "/rejections", "list_rejections", "search-rejections"),
    DicomWebRoute("GET", "/drift", "drift", "read-drift"),
    DicomWebRoute("GET", "/workitems", "search_workitems", "search-workitems"),
    DicomWebRoute("POST", "/workitems", "create_workitem", "create-workitem"),
    DicomWebRoute("GET", _WORKITEM, "retrieve_workitem", "retrieve-workitem"),
    DicomWebRoute("POST", _WORKITEM, "update_workitem", "update-workitem"),
    DicomWebRoute("PUT", _WORKITEM + "/state", "change_workitem_state", "change-workitem-state"),
    DicomWebRoute("POST", _WORKITEM + "/cancelrequest", "request_cancellation", "request-cancellation"),
    DicomWebRoute("POST", _SUBSCRIBER, "subscribe", "subscribe"),
    DicomWebRoute("DELETE", _SUBSCRIBER, "unsubscribe", "unsubscribe"),
    DicomWebRoute("POST", _SUBSCRIBER + "/suspend", "suspend", "suspend-subscription"),
)
