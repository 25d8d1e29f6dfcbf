"""One entry for each route of the DICOMweb gateway: the requests by which another patient's study could be asked for.

`test_leaks.py` asks them; a route without an entry fails there. `{study}`, `{series}` and `{instance}` are UIDs.
"""

from __future__ import annotations

from dataclasses import dataclass

_STUDY = "/studies/{study}"
_SERIES = _STUDY + "/series/{series}"
_INSTANCE = _SERIES + "/instances/{instance}"
_FRAMES = _INSTANCE + "/frames/{frames}"
_WORKITEM = "/workitems/{workitem}"
_SUBSCRIBER = _WORKITEM + "/subscribers/{aetitle}"
_PARENTS = (_STUDY, _SERIES, _INSTANCE)
_SPEAKING = ("ModalitiesInStudy=MR", "PatientID={patient}", "PatientName=SYNTHETIC*", "limit=1")


@dataclass(frozen=True, slots=True)
class Probe:
    """One request.

    Parameters
    ----------
    accept : media types; empty: none is named
    stores : the body is the instance of another patient's study, to be stored
    of_all : it tells of the whole archive: nobody who sees a part of it may ask
    open_to_patients : whether a token of one patient's record gets something else for its own study
    """

    method: str
    path: str
    accept: str = ""
    stores: bool = False
    of_all: bool = False
    open_to_patients: bool = True

    @property
    def lists(self) -> bool:
        """Whether it names no study and no patient: it lists what the asker may see."""
        return "{" not in self.path and not self.stores

    def __str__(self) -> str:
        return f"{self.method} {self.path}" + (f" {self.accept}" if self.accept else "")


def gets(path: str, *queries: str, accept: tuple[str, ...] = ("",)) -> tuple[Probe, ...]:
    """The path, alone and with each query, in each form."""
    asked = [path, *(f"{path}?{query}" for query in queries)]
    return tuple(Probe("GET", item, form) for item in asked for form in accept)


def _searches() -> dict[str, tuple[Probe, ...]]:
    named = {
        "/studies": ("StudyInstanceUID={study}",),
        "/series": ("StudyInstanceUID={study}", "SeriesInstanceUID={series}"),
        "/instances": ("SeriesInstanceUID={series}", "SOPInstanceUID={instance}"),
        _STUDY + "/series": ("SeriesInstanceUID={series}",),
        _STUDY + "/instances": ("SOPInstanceUID={instance}",),
        _SERIES + "/instances": ("SOPInstanceUID={instance}",),
    }
    found = {f"GET {path}": gets(path, *own, *_SPEAKING) for path, own in named.items()}
    found["GET /studies"] += gets("/studies?limit=1&offset=1")
    return found


_NOT_OFFERED = "text/plain"
_WADO = "/wado?requestType=WADO&studyUID={study}&seriesUID={series}&objectUID={instance}"
PROBES: dict[str, tuple[Probe, ...]] = {
    **_searches(),
    **{f"POST {path}": (Probe("POST", path, stores=True, open_to_patients=False),) for path in ("/studies", _STUDY)},
    f"POST {_STUDY}/register": (Probe("POST", f"{_STUDY}/register", open_to_patients=False),),
    **{
        f"GET {path}": gets(
            path, accept=("", 'multipart/related; type="application/dicom"; transfer-syntax=*', _NOT_OFFERED)
        )
        for path in _PARENTS
    },
    **{f"GET {path}/metadata": gets(f"{path}/metadata", accept=("", "application/dicom+json")) for path in _PARENTS},
    **{
        f"GET {path}/{kind}": gets(f"{path.replace('{frames}', '1')}/{kind}", "viewport=8,8", accept=("", "image/png"))
        for path in (*_PARENTS, _FRAMES)
        for kind in ("rendered", "thumbnail")
    },
    f"GET {_FRAMES}": (
        *gets(f"{_INSTANCE}/frames/1", accept=("", "application/octet-stream", _NOT_OFFERED)),
        *gets(f"{_INSTANCE}/frames/9"),
        *gets(f"{_INSTANCE}/frames/none"),
    ),
    f"GET {_INSTANCE}/bulkdata/{{path:path}}": (
        *gets(f"{_INSTANCE}/bulkdata/7FE00010", accept=("", "application/octet-stream", _NOT_OFFERED)),
        *gets(f"{_INSTANCE}/bulkdata/00420011"),
    ),
    **{
        f"GET {path}/{kind}": gets(f"{path}/{kind}", accept=("", _NOT_OFFERED))
        for path in _PARENTS
        for kind in ("bulkdata", "pixeldata")
    },
    # In this order: what is rejected is listed, and restored before the next one asks for it.
    f"POST {_STUDY}/reject/{{code}}": (Probe("POST", f"{_STUDY}/reject/113037^DCM", open_to_patients=False),),
    "GET /rejections": (
        Probe("GET", "/rejections", open_to_patients=False),
        Probe("GET", "/rejections?StudyInstanceUID={study}", open_to_patients=False),
    ),
    "GET /drift": tuple(
        Probe("GET", f"/drift{query}", open_to_patients=False, of_all=True) for query in ("", "?lang=en")
    ),
    f"POST {_STUDY}/restore": (Probe("POST", f"{_STUDY}/restore", open_to_patients=False),),
    **{
        f"POST {path}/{route}": (Probe("POST", f"{path}/{call}", open_to_patients=False),)
        for path in (_SERIES, _INSTANCE)
        for route, call in (("reject/{code}", "reject/113037^DCM"), ("restore", "restore"))
    },
    **{f"DELETE {path}": (Probe("DELETE", path, open_to_patients=False),) for path in _PARENTS},
    "GET /wado": tuple(
        Probe("GET", _WADO + query)
        for query in (
            *("", "&contentType=application/dicom", "&contentType=image/png&rows=8", "&contentType=text/plain"),
            "&contentType=application/dicom&transferSyntax=1.2.840.10008.1.2.4.90",
        )
    ),
    # `test_leaks.py` gives each study a Task; its workitem has the UID of the instance. Patients reach no Tasks.
    "GET /workitems": (
        Probe("GET", "/workitems", open_to_patients=False),
        Probe("GET", "/workitems?InputInformationSequence.StudyInstanceUID={study}", open_to_patients=False),
        Probe("GET", "/workitems?PatientID={patient}", open_to_patients=False),
        Probe("GET", "/workitems?ProcedureStepState=SCHEDULED&limit=1", open_to_patients=False),
    ),
    "POST /workitems": (Probe("POST", "/workitems?workitem={instance}", open_to_patients=False),),
    f"GET {_WORKITEM}": (
        Probe("GET", "/workitems/{instance}", open_to_patients=False),
        Probe(
            "GET", "/workitems/{instance}", 'multipart/related; type="application/dicom+xml"', open_to_patients=False
        ),
    ),
    f"POST {_WORKITEM}": (Probe("POST", "/workitems/{instance}", open_to_patients=False),),
    f"PUT {_WORKITEM}/state": (Probe("PUT", "/workitems/{instance}/state", open_to_patients=False),),
    # In this order: there has to be a subscription that could be suspended and ended.
    f"POST {_SUBSCRIBER}": (Probe("POST", "/workitems/{instance}/subscribers/PROBE", open_to_patients=False),),
    f"POST {_SUBSCRIBER}/suspend": (
        Probe("POST", "/workitems/{instance}/subscribers/PROBE/suspend", open_to_patients=False),
    ),
    f"DELETE {_SUBSCRIBER}": (Probe("DELETE", "/workitems/{instance}/subscribers/PROBE", open_to_patients=False),),
    f"POST {_WORKITEM}/cancelrequest": (Probe("POST", "/workitems/{instance}/cancelrequest", open_to_patients=False),),
}
