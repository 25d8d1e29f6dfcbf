"""What a kick-off asks for: parameters of `$export`, checked and kept with the job.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html#query-parameters
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from fhir_server.model.references import LOGICAL_ID
from fhir_server.operations.parameters import Parameter, Parameters
from fhir_server.search.parameters import resource_types
from foramen.kernel.errors import InvalidRequestError

NAMES = (
    *("_outputFormat", "_since", "_until", "_type", "_typeFilter", "_elements", "patient", "includeAssociatedData"),
    *("organizeOutputBy", "_pseudonymise", "allowPartialManifests"),
)
_FORMATS = {"application/fhir+ndjson", "application/ndjson", "ndjson"}
_PROVENANCE = {"LatestProvenanceResources", "RelevantProvenanceResources"}
_NEXT_FILTER = re.compile(r",(?=[A-Z][A-Za-z]+\?)")
_ELEMENT = re.compile(r"(?:([A-Z][A-Za-z]+)\.)?([a-z][A-Za-z0-9]*)")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """One export.

    Parameters
    ----------
    level : system, patient or group; `group` is the Group's id
    url : of the kick-off request
    filters : searches of `_typeFilter`, each ``Type?query``
    since, until : microseconds since 1970
    elements : pairs (type or empty for every type, element name)
    patients : ids of Patients; None when not asked for
    provenance : whether Provenance of what is exported comes along
    project : whose pseudonyms to write; empty: as it is
    """

    level: str
    url: str
    group: str = ""
    types: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None
    elements: tuple[tuple[str, str], ...] = ()
    patients: tuple[str, ...] | None = None
    provenance: bool = False
    project: str = ""
    lenient: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return what the job keeps."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> ExportRequest:
        """Read what `to_json` wrote."""
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in data.items()}
        values["elements"] = tuple((a, b) for a, b in data["elements"])
        return ExportRequest(**values)


def read_request(parameters: Parameters, *, level: str, url: str, group: str = "", lenient: bool) -> ExportRequest:
    """Read the parameters of a kick-off.

    Parameters
    ----------
    lenient : `Prefer: handling=lenient`: what is not supported is left out instead of refused

    Raises
    ------
    InvalidRequestError
        A parameter that is not known or not supported, or a bad value.
    """
    if not lenient:
        parameters.check_known(NAMES)
    output_format = (parameters.text("_outputFormat") or "ndjson").replace(" ", "+").partition(";")[0]
    if output_format not in _FORMATS:
        raise _fault("_outputFormat", "must be application/fhir+ndjson", "not-supported")
    if "organizeOutputBy" in parameters and not lenient:
        raise _fault("organizeOutputBy", "is not supported: files hold one resource type each", "not-supported")
    types = _types(parameters, lenient=lenient)
    project = parameters.text("_pseudonymise") or ""
    if project and not _PROJECT.fullmatch(project):
        raise _fault("_pseudonymise", "must name a project")
    return ExportRequest(
        level,
        url,
        group,
        types,
        _filters(parameters, types, lenient=lenient),
        _moment(parameters, "_since"),
        _moment(parameters, "_until"),
        _elements(parameters),
        _patients(parameters, level),
        _associated(parameters, lenient=lenient),
        project,
        lenient,
    )


def _fault(name: str, what: str, code: str = "value") -> InvalidRequestError:
    where = f"Parameters.parameter.where(name='{name}')"
    return InvalidRequestError(f"{name} {what}", issue_code=code, expression=(where,))


def _types(parameters: Parameters, *, lenient: bool) -> tuple[str, ...]:
    named = list(dict.fromkeys(parameters.listed("_type")))
    known = [name for name in named if name in resource_types()]
    if len(known) < len(named) and not (lenient and known):
        raise _fault("_type", "names an unknown resource type")
    return tuple(known)


def _filters(parameters: Parameters, types: tuple[str, ...], *, lenient: bool) -> tuple[str, ...]:
    found = []
    for text in parameters.texts("_typeFilter"):
        for item in _NEXT_FILTER.split(text):
            resource_type, mark, _ = item.partition("?")
            if not mark or resource_type not in resource_types():
                raise _fault("_typeFilter", "needs the form Type?query")
            if not types or resource_type in types:
                found.append(item)
            elif not lenient:
                raise _fault("_typeFilter", "names a type that _type leaves out")
    return tuple(found)


def _moment(parameters: Parameters, name: str) -> int | None:
    period = parameters.period(name)
    if period is None:
        return None
    delta = period[0] - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def _elements(parameters: Parameters) -> tuple[tuple[str, str], ...]:
    found = []
    for item in parameters.listed("_elements"):
        match = _ELEMENT.fullmatch(item)
        if match is None or (match.group(1) and match.group(1) not in resource_types()):
            raise _fault("_elements", "needs names of elements, or Type.element")
        found.append((match.group(1) or "", match.group(2)))
    return tuple(found)


def _patients(parameters: Parameters, level: str) -> tuple[str, ...] | None:
    given = parameters.every("patient")
    if not given:
        return None
    if level == "system":
        raise _fault("patient", "belongs to the export of Patient or Group")
    return tuple(dict.fromkeys(map(_patient, given)))


def _patient(item: Parameter) -> str:
    reference = item.value.get("reference") if item.kind == "valueReference" and isinstance(item.value, dict) else None
    resource_type, _, logical_id = reference.rpartition("/") if isinstance(reference, str) else ("", "", "")
    if resource_type.rpartition("/")[2] != "Patient" or not LOGICAL_ID.fullmatch(logical_id):
        raise _fault("patient", "must be a valueReference to a Patient, in the body of a POST")
    return logical_id


def _associated(parameters: Parameters, *, lenient: bool) -> bool:
    named = set(parameters.listed("includeAssociatedData"))
    if not named <= _PROVENANCE and not lenient:
        raise _fault("includeAssociatedData", f"must be one of {', '.join(sorted(_PROVENANCE))}", "not-supported")
    return bool(named & _PROVENANCE)
