"""One entry for each route of the FHIR API: the requests by which another patient's data could be asked for.

`test_leaks.py` asks them; a route without an entry fails there. `{t}` is the name of everything of the other patient,
`{asker}` the id of the patient to whom the token is bound (`leak_world.py`).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from tests.contract.fhir import leak_subject_rights
from tests.contract.fhir.api import entry, observation
from tests.contract.fhir.leak_setups import (
    async_job,
    audit_event,
    deleted,
    export_file,
    export_job,
    idle,
    indexed,
    package,
    reindex_job,
)
from tests.contract.fhir.leak_world import FORM, SYSTEM, Probe, parameters

KNOWN = f"identifier={SYSTEM}|{{t}}"
"""A condition that only the other patient's resource fulfils."""
LATER = {"prefer": "respond-async"}
MINE: dict[str, Any] = observation("Patient/{asker}", valueString="SYNTHETIC changed")
NAMED: dict[str, Any] = {**MINE, "identifier": [{"system": SYSTEM, "value": "{t}"}]}
PATCH: dict[str, Any] = {
    "resourceType": "Parameters",
    "parameter": [
        {
            "name": "operation",
            "part": [
                {"name": "type", "valueCode": "replace"},
                {"name": "path", "valueString": "Observation.status"},
                {"name": "value", "valueCode": "amended"},
            ],
        }
    ],
}
JSON_PATCH = b'[{"op":"replace","path":"/status","value":"amended"}]'
TAG = parameters(meta_valueMeta={"tag": [{"system": SYSTEM, "code": "added"}]})
UNTAG = parameters(meta_valueMeta={"tag": [{"system": SYSTEM, "code": "{t}"}]})
NONE: dict[str, Any] = {"resourceType": "Parameters"}
LINK = "Observation?_id=x-{t}"

READS = tuple(
    Probe("GET", path)
    for path in (
        *("Observation/{t}", "Patient/{t}", "Encounter/{t}", "Provenance/{t}", "List/{t}", "Group/{t}", "Binary/{t}"),
        *("Observation/{t}?_elements=status", "Observation/{t}?_summary=true", "Observation/{t}?_format=xml"),
    )
)
SEARCHES: dict[str, tuple[str, ...]] = {
    "alone": (
        *(f"Observation?{KNOWN}", "Observation?_id={t}", "Observation?patient={t}", "Observation?subject=Patient/{t}"),
        *(
            "Observation?_summary=count",
            "Observation?_total=accurate&_count=1",
            "Observation?_count=1&_sort=-_lastUpdated",
        ),
        *(
            "Observation?_sort=-_lastUpdated,-_id",
            f"Observation?_tag={SYSTEM}|{{t}}",
            "Observation?code:not=zzz&_id={t}",
        ),
        *("Observation?encounter=Encounter/{t}", "Observation?value-string=SYNTHETIC%20{t}", "Observation?_list={t}"),
        *("Observation?patient:Patient.name=SYNTHETIC{t}", "Observation?encounter.identifier=urn:leak|{t}"),
        *("Observation?_filter=identifier%20eq%20{t}", "Observation?_lastUpdated=gt2000&_sort=-_lastUpdated"),
        *(
            "Observation?_elements=id&_sort=-_lastUpdated",
            "Observation?_summary=text&_id={t}",
            "Observation?_id={t}&_include=*",
        ),
        *("Patient?name=SYNTHETIC{t}", f"Patient?{KNOWN}", f"Patient?_has:Observation:patient:{KNOWN}"),
        f"Patient?_has:Observation:patient:_has:Provenance:target:_id={{t}}&{KNOWN}",
        *("Patient?_id={t}&_revinclude=Observation:patient", "Provenance?target=Observation/{t}", "Group?member={t}"),
        *("Provenance?target:Observation.identifier=urn:leak|{t}", "List?subject=Patient/{t}", "Binary?_id={t}"),
        *("List?item=Observation/{t}", "Encounter?patient={t}", "AuditEvent?patient={t}"),
        *("AuditEvent?entity=Patient/{t}", "AuditEvent?entity=Observation/{t}&_summary=count"),
        *("Group?_id={t}&_include=Group:member", f"Observation?{KNOWN}&_format=xml"),
    ),
    "linked": (
        *(f"{LINK}&_include=Observation:derived-from", f"{LINK}&_include:iterate=*", f"{LINK}&_include=*"),
        *(f"{LINK}&_revinclude=Observation:has-member", f"{LINK}&_revinclude=*"),
        *(f"{LINK}&derived-from:Observation.code=F01", f"{LINK}&derived-from:Observation.{KNOWN}"),
        *(f"{LINK}&derived-from:Observation.patient.name=SYNTHETIC{{t}}", f"{LINK}&derived-from:Observation._id={{t}}"),
        *(f"{LINK}&_has:Observation:has-member:{KNOWN}", f"{LINK}&_has:Observation:has-member:_id={{t}}"),
        *(f"{LINK}&_has:Observation:has-member:code=F01&_summary=count",),
        f"{LINK}&_include=Observation:derived-from&_include:iterate=Observation:encounter&_revinclude=Observation:has-member",
    ),
}


def searches(path: str = "{query}", **more: Any) -> tuple[Probe, ...]:
    """Every search, as GET."""
    plain = tuple(Probe("GET", path.replace("{query}", query), **more) for query in SEARCHES["alone"])
    return plain + tuple(Probe("GET", path.replace("{query}", q), linked=True, **more) for q in SEARCHES["linked"])


def posted(probes: tuple[Probe, ...]) -> tuple[Probe, ...]:
    """The same searches with their parameters in a form."""
    found = []
    for probe in probes:
        path, _, query = probe.path.partition("?")
        headers = {**probe.headers, "content-type": FORM}
        found.append(Probe("POST", f"{path}/_search".lstrip("/"), query, headers, probe.owner, linked=probe.linked))
    return tuple(found)


WRITES: tuple[Probe, ...] = (
    Probe("PUT", "Observation/{t}", {**MINE, "id": "{t}"}),
    Probe("PUT", "Observation/{t}", {**MINE, "id": "{t}"}, {"if-match": 'W/"1"'}),
    Probe("PUT", "Observation/{t}", {**MINE, "id": "{t}"}, {"if-match": "*"}),
    Probe("PUT", "Observation/{t}", {**MINE, "id": "{t}"}, {"if-none-match": "*"}),
    Probe("PUT", f"Observation?{KNOWN}", NAMED),
    Probe("PUT", f"Observation?{KNOWN}", {**NAMED, "id": "{t}"}, owner=True),
    Probe("PUT", f"Observation?patient:Patient.{KNOWN}", MINE),
    Probe("PATCH", "Observation/{t}", PATCH),
    Probe("PATCH", "Observation/{t}", PATCH, {"if-match": 'W/"1"'}),
    Probe("PATCH", f"Observation?{KNOWN}", PATCH),
    Probe("DELETE", "Observation/{t}"),
    Probe("DELETE", "Observation/{t}", headers={"if-match": 'W/"1"'}),
    Probe("DELETE", f"Observation?{KNOWN}"),
    Probe("POST", "Observation", NAMED, {"if-none-exist": KNOWN}),
    Probe("POST", "Observation", NAMED, {"if-none-exist": f"patient:Patient.{KNOWN}"}),
)
REFERRING = Probe("POST", "Observation", {**MINE, "hasMember": [{"reference": f"Observation?{KNOWN}"}]})
_IN_ENTRY = {"if-match": "ifMatch", "if-none-match": "ifNoneMatch", "if-none-exist": "ifNoneExist"}


def in_bundle(kind: str, probe: Probe) -> Probe:
    """The request as an entry of a batch or transaction, between two harmless ones."""
    request = {_IN_ENTRY[name]: value for name, value in probe.headers.items()}
    asked = entry(probe.method, quote(probe.path, safe="{}/?=&:|,$*%"), probe.body, **request)
    body = {"resourceType": "Bundle", "type": kind, "entry": [asked]}
    return Probe("POST", "", body, owner=probe.owner, linked=probe.linked, setup=probe.setup)


ENTRIES = (*READS[:7], *searches()[::8], *WRITES, REFERRING)


def terminology(resource_type: str, name: str, query: str, *, instance: str = "") -> dict[str, tuple[Probe, ...]]:
    """Operations on definitions: to a token of one patient's record those of nobody's record are as absent."""
    found: dict[str, tuple[Probe, ...]] = {}
    for path, asked in ((f"{resource_type}/${name}", query), (f"{resource_type}/{{t}}/${name}", instance)):
        if asked:
            sent = dict(pair.split("=", 1) for pair in asked.split("&") if "=" in pair)
            kinds = {"url": "valueUri", "system": "valueUri", "code": "valueCode", "codeA": "valueCode"}
            kinds |= {"codeB": "valueCode"}
            body = parameters(**{f"{key}_{kinds.get(key, 'valueUri')}": value for key, value in sent.items()})
            given = f"{path}?{asked}" if sent else path
            key = path.replace("{t}", "{id}")
            found[f"GET {key}"] = (Probe("GET", given, owner=False),)
            found[f"POST {key}"] = (Probe("POST", path, body, owner=False),)
    return found


def both(path: str, *queries: str, key: str = "", **more: Any) -> dict[str, tuple[Probe, ...]]:
    """An operation by GET and, without a query, by POST."""
    key = key or path.replace("{t}", "{id}")
    asked = tuple(Probe("GET", path + query, **more) for query in queries or ("",))
    return {f"GET {key}": asked, f"POST {key}": (Probe("POST", path, NONE, **more),)}


EXPORTS = {
    "$export": ("?_type=Observation", "?_type=Observation,Patient&_typeFilter=Observation?identifier%3D{t}"),
    "Patient/$export": (
        *("?_type=Observation", "?_type=Patient,Provenance"),
        "?_type=Observation&includeAssociatedData=RelevantProvenanceResources",
    ),
    "Group/{t}/$export": ("?_type=Observation",),
}
ONE_PATIENT = parameters(_type_valueString="Observation", patient_valueReference={"reference": "Patient/{t}"})

PROBES: dict[str, tuple[Probe, ...]] = {
    "GET metadata": (Probe("GET", "metadata", blind=True),),
    "GET openapi.json": (Probe("GET", "openapi.json", blind=True),),
    "POST ": (
        *(in_bundle(kind, probe) for kind in ("batch", "transaction") for probe in ENTRIES),
        Probe("POST", "", in_bundle("transaction", READS[0]).body, LATER, follow=True),
    ),
    "GET _history": (Probe("GET", "_history?_count=30", scope="patient/Observation.rs patient/Patient.rs"),),
    "GET {type}/{id}": (
        *READS,
        Probe("GET", "Binary/{t}", headers={"accept": "text/plain"}),
        Probe("GET", "Observation/{t}", headers={"if-none-match": 'W/"1"'}),
        Probe("GET", "Observation/{t}", headers={"if-modified-since": "Wed, 01 Jan 2098 00:00:00 GMT"}),
        Probe("GET", "Observation/{t}", setup=deleted, owner=False),
        Probe("GET", "AuditEvent/{event}", setup=audit_event),
    ),
    "GET {type}/{id}/_history/{version}": (
        *(Probe("GET", f"{kind}/{{t}}/_history/1") for kind in ("Observation", "Patient", "Binary", "Group")),
        Probe("GET", "Observation/{t}/_history/1", headers={"if-none-match": 'W/"1"'}),
        Probe("GET", "Observation/{t}/_history/1", setup=deleted),
        Probe("GET", "Observation/{t}/_history/2", setup=deleted, owner=False),
    ),
    "GET {type}/{id}/_history": (
        *(Probe("GET", f"{kind}/{{t}}/_history") for kind in ("Observation", "Patient", "Binary", "List")),
        Probe("GET", "Observation/{t}/_history?_count=1"),
        Probe("GET", "Observation/{t}/_history", setup=deleted, owner=False),
    ),
    "GET {type}/_history": (
        *(Probe("GET", f"{kind}/_history") for kind in ("Observation", "Patient", "Binary", "Provenance")),
        Probe("GET", "Observation/_history?_count=1"),
        Probe("GET", "Observation/_history", setup=deleted),
    ),
    "PUT {type}/{id}": tuple(p for p in WRITES if p.method == "PUT" and "?" not in p.path),
    "PUT {type}": tuple(p for p in WRITES if p.method == "PUT" and "?" in p.path),
    "PATCH {type}/{id}": (
        *(p for p in WRITES if p.method == "PATCH" and "?" not in p.path),
        Probe("PATCH", "Observation/{t}", JSON_PATCH, {"content-type": "application/json-patch+json"}),
    ),
    "PATCH {type}": tuple(p for p in WRITES if p.method == "PATCH" and "?" in p.path),
    "DELETE {type}/{id}": tuple(p for p in WRITES if p.method == "DELETE" and "?" not in p.path),
    "DELETE {type}": tuple(p for p in WRITES if p.method == "DELETE" and "?" in p.path),
    "POST {type}": (
        *(p for p in WRITES if p.method == "POST"),
        REFERRING,
        Probe("POST", f"Observation?{KNOWN}", NAMED),
    ),
    "GET {type}": (
        *searches(),
        Probe("GET", f"Observation?{KNOWN}", headers=LATER, follow=True),
        Probe("GET", "Observation?_content={t}", setup=indexed),
        Probe("GET", f"Observation?{KNOWN}&_explain=true", owner=False),
        Probe("GET", "Observation?_explain=analyze", owner=False),
    ),
    "POST {type}/_search": posted(searches()[::3]),
    "GET ": (
        Probe("GET", "?_type=Observation,Patient&_id={t}"),
        Probe("GET", "?_type=Observation,Patient&_summary=count"),
        Probe("GET", f"?_type=Observation,List&{KNOWN}", headers=LATER, follow=True),
    ),
    "POST _search": posted(
        (
            Probe("GET", "?_type=Observation,Patient&_id={t}"),
            Probe("GET", "?_type=List&_count=1&_sort=-_lastUpdated"),
        )
    ),
    "GET {type}/{id}/{member}": (
        *(Probe("GET", f"Patient/{{t}}/{kind}") for kind in ("Observation", "Encounter", "Group", "Provenance")),
        Probe("GET", "Patient/{t}/*?_type=Observation,List"),
        Probe("GET", "Patient/{t}/Observation?_summary=count"),
        Probe("GET", "Encounter/{t}/Observation"),
    ),
    "POST {type}/{id}/{member}/_search": posted((Probe("GET", "Patient/{t}/Observation?code=F01"),)),
    "GET $async-status/{id}": (Probe("GET", "$async-status/{job}", setup=async_job),),
    "DELETE $async-status/{id}": (Probe("DELETE", "$async-status/{job}", setup=async_job),),
    **both("Patient/{t}/$access-log", "", "?_count=1", in_person=True),
    **{
        f"{method} {path.replace('{t}', '{id}')}": tuple(
            Probe(method, path + query, headers=LATER, follow=True) for query in queries
        )
        for path, queries in EXPORTS.items()
        for method in ("GET",)
    },
    **{
        f"POST {path.replace('{t}', '{id}')}": (
            Probe("POST", path, parameters(_type_valueString="Observation"), LATER, follow=True),
            *(() if path == "$export" else (Probe("POST", path, ONE_PATIENT, LATER, follow=True),)),
        )
        for path in EXPORTS
    },
    "GET $bulk-status/{id}": (Probe("GET", "$bulk-status/{job}", setup=export_job),),
    "DELETE $bulk-status/{id}": (Probe("DELETE", "$bulk-status/{job}", setup=export_job),),
    "GET $bulk-file/{id}": (
        Probe("GET", "$bulk-file/{file}", setup=export_file),
        Probe("GET", "$bulk-file/{file}", headers={"range": "bytes=0-9"}, setup=export_file),
    ),
    "POST $import": (
        Probe(
            "POST", "$import", b'{"resourceType":"Basic"}\n', {"content-type": "application/fhir+ndjson"}, blind=True
        ),
    ),
    **both("Patient/{t}/$everything", "", "?_count=1", "?_type=Observation"),
    **both("Patient/$everything", "?_type=Observation", everybody=False),
    **both("Encounter/{t}/$everything", "", "?_count=1"),
    "POST {type}/{id}/$expunge": (
        Probe("POST", "Observation/{t}/$expunge", parameters(expungePreviousVersions_valueBoolean=True), owner=False),
    ),
    "POST {type}/$expunge": (
        Probe(
            "POST",
            "Observation/$expunge",
            parameters(expungeDeletedResources_valueBoolean=True),
            setup=deleted,
            owner=False,
        ),
    ),
    **leak_subject_rights.PROBES,
    "GET Observation/$lastn": (
        Probe("GET", "Observation/$lastn?patient={t}&code=F01"),
        Probe("GET", "Observation/$lastn?subject:Patient.identifier=urn:leak|{t}&code=F01"),
    ),
    "POST Observation/$lastn": (
        Probe("POST", "Observation/$lastn", parameters(patient_valueString="Patient/{t}", code_valueString="F01")),
    ),
    **both("$meta", key="$meta"),
    **both("Observation/$meta", key="{type}/$meta"),
    **both("Observation/{t}/$meta", key="{type}/{id}/$meta"),
    **both("Observation/{t}/_history/1/$meta", key="{type}/{id}/_history/{version}/$meta"),
    "POST {type}/{id}/$meta-add": (Probe("POST", "Observation/{t}/$meta-add", TAG),),
    "POST {type}/{id}/$meta-delete": (Probe("POST", "Observation/{t}/$meta-delete", UNTAG),),
    "POST $reindex": (Probe("POST", "$reindex", parameters(type_valueString="Basic"), setup=idle, blind=True),),
    "GET $reindex": (Probe("GET", "$reindex", setup=idle, blind=True),),
    "GET $reindex-status/{id}": (Probe("GET", "$reindex-status/{job}", setup=reindex_job, owner=False),),
    "DELETE $reindex-status/{id}": (Probe("DELETE", "$reindex-status/{job}", setup=reindex_job, owner=False),),
    **terminology("CodeSystem", "lookup", "system=urn:system:{t}&code=one"),
    **terminology("CodeSystem", "validate-code", "url=urn:system:{t}&code=one", instance="code=one"),
    **terminology(
        "CodeSystem", "subsumes", "system=urn:system:{t}&codeA=one&codeB=two", instance="codeA=one&codeB=two"
    ),
    **terminology(
        "ValueSet",
        "validate-code",
        "url=urn:set:{t}&code=one&system=urn:system:{t}",
        instance="code=one&system=urn:system:{t}",
    ),
    **terminology("ValueSet", "expand", "url=urn:set:{t}", instance=" "),
    **terminology(
        "ConceptMap",
        "translate",
        "url=urn:map:{t}&code=one&system=urn:system:{t}",
        instance="code=one&system=urn:system:{t}",
    ),
    # For our own gateways alone: `test_closed_records.py` shows what it tells them.
    "GET ImagingStudy/$closed-records": (Probe("GET", "ImagingStudy/$closed-records", owner=False, everybody=False),),
    "POST $install-package": (
        Probe("POST", "$install-package", package(), {"content-type": "application/gzip"}, blind=True),
    ),
    "POST {type}/$validate": (
        Probe("POST", "Observation/$validate", {**NAMED, "id": "{t}"}, blind=True),
        Probe("POST", "Observation/$validate?mode=update", {**NAMED, "id": "{t}"}, blind=True),
    ),
    "GET {type}/$validate": (Probe("GET", "Observation/$validate?mode=create", owner=False, blind=True),),
    "POST {type}/{id}/$validate": (
        Probe("POST", "Observation/{t}/$validate", NONE),
        Probe("POST", "Observation/{t}/$validate?mode=update", {**MINE, "id": "{t}"}),
        Probe("POST", "Observation/{t}/$validate?mode=delete", NONE),
    ),
    "GET {type}/{id}/$validate": (
        Probe("GET", "Observation/{t}/$validate"),
        Probe("GET", "Observation/{t}/$validate?mode=delete"),
        Probe("GET", "Observation/{t}/$validate", setup=deleted, owner=False),
    ),
}
