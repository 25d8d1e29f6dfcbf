"""Pseudonymised export: nothing that names a person comes out, pseudonyms hold within a project and not across."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_server.bulk.projects import add_project
from fhir_server.bulk.pseudonyms import Pseudonymiser, covered_types, rules
from tests.contract.fhir.api import Api, refused, running
from tests.contract.fhir.bulk_exports import ASYNC, exported, lines

OWN = "http://127.0.0.1:8000/fhir"
LOINC = {"system": "http://loinc.org", "code": "72514-3", "display": "PAIN-DISPLAY"}

# Marked, so that a hit anywhere in the output is a leak and not a coincidence.
secrets = st.text("abcdefghijklmnopqrstuvwxyz", min_size=6, max_size=12).map(lambda text: f"Zq{text}qZ")
numbers = st.from_regex(r"9[0-9]{10}7", fullmatch=True)
birth_dates = st.dates().map(lambda d: d.replace(year=1900 + d.year % 110).isoformat())
ids = st.from_regex(r"idq[a-z0-9]{8,20}", fullmatch=True)


@st.composite
def records(draw: st.DrawFn) -> tuple[list[dict[str, Any]], set[str]]:
    """A SYNTHETIC patient with some resources, and every value that must not come out."""
    patient_id, observation_id, study_id = draw(ids), draw(ids) + "o", draw(ids) + "s"
    name, given, street, city, note, organisation = (draw(secrets) + str(n) for n in range(6))
    phone, number, issuer_number, postal = draw(numbers), draw(numbers) + "1", draw(numbers) + "2", draw(numbers) + "3"
    birth = draw(birth_dates)
    effective = draw(st.dates(date(2010, 1, 1), date(2024, 12, 31)).map(date.isoformat))
    hidden = {name, given, street, city, note, organisation, phone, number, issuer_number, postal, birth, effective}
    hidden |= {patient_id, observation_id, study_id}
    reference = draw(st.sampled_from([f"Patient/{patient_id}", f"{OWN}/Patient/{patient_id}"]))
    contact = {"name": {"text": f"{given} {name}"}, "telecom": [{"system": "phone", "value": phone}]}
    patient = {
        "resourceType": "Patient",
        "id": patient_id,
        "text": {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{name}</div>'},
        "meta": {"source": f"urn:{note}", "tag": [{"system": "http://hospital.example/tags", "code": note}]},
        "extension": [{"url": "http://hospital.example/mother", "valueString": name}],
        "identifier": [
            {"system": "http://hospital.example/mrn", "value": number, "assigner": {"display": organisation}}
        ],
        "name": [
            {
                "family": name,
                "given": [given],
                "_family": {"extension": [{"url": "http://x.example", "valueString": name}]},
            }
        ],
        "telecom": [{"system": "phone", "value": phone}, {"system": "email", "value": f"{name}@example.org"}],
        "gender": "female",
        "birthDate": birth,
        "_birthDate": {
            "extension": [
                {
                    "url": "http://hl7.org/fhir/StructureDefinition/patient-birthTime",
                    "valueDateTime": f"{birth}T08:00:00Z",
                }
            ]
        },
        "address": [
            {"line": [street], "city": city, "district": city, "postalCode": postal, "country": "CN", "text": street}
        ],
        "contact": [contact],
        "photo": [{"title": name, "data": "AAAA"}],
        "managingOrganization": {"reference": f"Organization/{patient_id}", "display": organisation},
        "contained": [{"resourceType": "Practitioner", "id": "gp", "name": [{"text": name}]}],
    }
    observation = {
        "resourceType": "Observation",
        "id": observation_id,
        "status": "final",
        "identifier": [{"value": issuer_number}],
        "code": {"coding": [LOINC, {"system": "http://hospital.example/local", "code": number}], "text": note},
        "subject": {"reference": reference, "display": f"{given} {name}", "identifier": {"value": number}},
        "performer": [{"reference": "#gp"}, {"display": name}, {"reference": f"urn:uuid:{note}"}],
        "effectiveDateTime": f"{effective}T10:00:00+08:00",
        "valueQuantity": {"value": 1.5, "unit": note, "system": "http://unitsofmeasure.org", "code": "mm"},
        "note": [{"text": note, "authorString": name}],
        "component": [{"code": {"coding": [LOINC]}, "valueString": note}, {"code": {"text": name}, "valueInteger": 3}],
    }
    study = {
        "resourceType": "ImagingStudy",
        "id": study_id,
        "status": "available",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:1.2.{number}"}],
        "subject": {"reference": reference},
        "started": effective,
        "description": note,
        "endpoint": [{"reference": f"Endpoint/{patient_id}"}],
        "series": [
            {
                "uid": f"1.2.{issuer_number}",
                "description": name,
                "modality": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "MR"},
                "instance": [
                    {
                        "uid": f"1.3.{phone}",
                        "title": name,
                        "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{number}"},
                    }
                ],
            }
        ],
    }
    return [patient, observation, study], hidden


def pseudonymised(key: bytes, resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    change = Pseudonymiser(key, OWN, 2026)
    return [orjson.loads(change(orjson.dumps(resource)) or b"null") for resource in resources]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records())
def test_nothing_that_identifies_comes_out(record: tuple[list[dict[str, Any]], set[str]]) -> None:
    resources, hidden = record
    found = pseudonymised(b"one", resources)
    text = orjson.dumps(found).decode()
    assert not [value for value in hidden if value in text]
    for forbidden in ("display", "text", "extension", "contained", "identifier", "#gp", "urn:", "PAIN-DISPLAY"):
        assert forbidden not in text, forbidden
    patient, observation, study = found
    assert patient["gender"] == "female"
    assert observation["code"] == {"coding": [{"system": "http://loinc.org", "code": "72514-3"}]}
    assert observation["valueQuantity"] == {"value": 1.5, "system": "http://unitsofmeasure.org", "code": "mm"}
    assert observation["subject"] == study["subject"] == {"reference": f"Patient/{patient['id']}"}
    assert observation["effectiveDateTime"].endswith("T10:00:00+08:00")
    assert observation["effectiveDateTime"][:10] == study["started"]
    assert patient["meta"]["security"][0]["code"] == "PSEUDED"
    assert re.fullmatch(r"2\.25\.\d{1,39}", study["series"][0]["uid"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records())
def test_the_same_within_a_project_and_different_across(record: tuple[list[dict[str, Any]], set[str]]) -> None:
    resources, _ = record
    first, again, other = (pseudonymised(key, resources) for key in (b"one", b"one", b"two"))
    assert first == again
    for here, there in zip(first, other, strict=True):
        assert here["id"] != there["id"]
    assert first[2]["series"][0]["uid"] != other[2]["series"][0]["uid"]


@given(st.dates(), st.dates(), ids)
def test_dates_of_a_patient_keep_their_distance(one: Any, two: Any, patient_id: str) -> None:
    one, two = (d.replace(year=2000 + d.year % 100, day=min(d.day, 28)) for d in (one, two))
    observations = [
        {
            "resourceType": "Observation",
            "id": f"o{n}",
            "subject": {"reference": f"Patient/{patient_id}"},
            "issued": f"{d.isoformat()}T00:00:00Z",
        }
        for n, d in enumerate((one, two))
    ]
    from datetime import date

    moved = [date.fromisoformat(item["issued"][:10]) for item in pseudonymised(b"one", observations)]
    assert moved[1] - moved[0] == two - one
    assert 1 <= abs((moved[0] - one).days) <= 365


def test_the_old_are_one_group_and_partial_dates_stay_partial() -> None:
    patients = [
        {"resourceType": "Patient", "id": f"p{n}", "birthDate": d}
        for n, d in enumerate(("1900-05-05", "1925", "1921-03", "1990-06-06"))
    ]
    years = [item["birthDate"] for item in pseudonymised(b"one", patients)]
    assert years[:3] == ["1936"] * 3
    assert years[3] in ("1989", "1990", "1991")
    age = {
        "resourceType": "Condition",
        "id": "c",
        "subject": {"reference": "Patient/p"},
        "recordedDate": "2020-03",
        "onsetAge": {"value": 95, "unit": "a", "system": "http://unitsofmeasure.org", "code": "a"},
    }
    (found,) = pseudonymised(b"one", [age])
    assert found["onsetAge"]["value"] == 90
    assert re.fullmatch(r"\d{4}-\d\d", found["recordedDate"])


def test_decimals_keep_their_digits() -> None:
    line = (
        b'{"resourceType":"Observation","id":"a","subject":{"reference":"Patient/p"},"valueQuantity":{"value":1.500}}'
    )
    assert b'"value":1.500' in (Pseudonymiser(b"one", OWN, 2026)(line) or b"")


def test_what_is_about_several_patients_has_no_dates() -> None:
    several = {
        "resourceType": "Provenance",
        "id": "a",
        "recorded": "2026-01-01T00:00:00Z",
        "target": [{"reference": "Patient/a"}, {"reference": "Patient/b"}],
    }
    (found,) = pseudonymised(b"one", [several])
    assert "recorded" not in found
    assert len(found["target"]) == 2


def test_the_rules_name_no_free_text_and_no_identifying_element() -> None:
    forbidden = {
        "text",
        "display",
        "identifier",
        "name",
        "telecom",
        "photo",
        "contact",
        "note",
        "line",
        "city",
        "district",
    }
    forbidden |= {
        "extension",
        "contained",
        "description",
        "valueString",
        "unit",
        "url",
        "data",
        "comment",
        "patientInstruction",
    }

    def walk(rule: Any) -> None:
        if isinstance(rule, dict):
            assert not forbidden & set(rule), rule
            for item in rule.values():
                walk(item)
        else:
            assert (
                rule in ("keep", "shift", "birth-year", "postal-prefix", "age", "uid", "reference")
                or rule in rules()["data_types"]
            )

    walk(rules()["data_types"])
    walk(rules()["resources"])


@pytest.mark.fhir_definitions
def test_the_rules_speak_of_elements_that_r4_has(test_data: Path) -> None:
    import tarfile

    with tarfile.open(test_data.parent / "fhir" / "core-r4.tgz") as archive:
        for name in sorted({*rules()["resources"], *(n for n in rules()["data_types"])}):
            member = next(m for m in archive.getnames() if m.endswith(f"/StructureDefinition-{name}.json"))
            file = archive.extractfile(member)
            assert file is not None
            elements = {e["path"]: e for e in orjson.loads(file.read())["snapshot"]["element"]}
            rule = rules()["resources"].get(name) or rules()["data_types"][name]
            check(rule, name, elements)


def check(rule: dict[str, Any], path: str, elements: dict[str, Any]) -> None:
    for name, item in rule.items():
        found = elements.get(f"{path}.{name}")
        if found is None:
            stem = next((s for s in elements if s.endswith("[x]") and f"{path}.{name}".startswith(s[:-3])), None)
            assert stem is not None, f"{path}.{name}"
            codes = [f"{path}.{name}"[len(stem) - 3 :]]
            codes = [t["code"] for t in elements[stem]["type"] if t["code"].lower() == codes[0].lower()]
            assert codes, f"{path}.{name}"
        else:
            reference = found.get("contentReference", "")
            if reference:
                continue
            codes = [t["code"] for t in found["type"]]
        if isinstance(item, dict):
            if "BackboneElement" in codes or "Element" in codes:
                check(item, f"{path}.{name}", elements)
            continue
        if item == "keep":
            assert set(codes) <= {
                "code",
                "boolean",
                "integer",
                "decimal",
                "positiveInt",
                "unsignedInt",
                "string",
                "uri",
            } or path.startswith("Timing"), f"{path}.{name} {codes}"
            if set(codes) & {"string", "uri"}:
                # Few, each looked at: terminology and questionnaire structure, never words about a person.
                assert name in {"version", "system", "linkId", "country", "type", "state"}, f"{path}.{name}"
        elif item in ("shift", "birth-year"):
            assert set(codes) <= {"date", "dateTime", "instant"}, f"{path}.{name}"
        elif item[0].isupper():
            assert item in codes or (item == "Quantity" and set(codes) <= {"Duration", "SimpleQuantity", "Age"}), (
                f"{path}.{name} {codes}"
            )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    home = tmp_path_factory.mktemp("home")
    for name in ("one", "two"):
        assert add_project(home, name)
        assert not add_project(home, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(home))
        patch.setenv("FORAMEN_FHIR_EXPORT_SETTLE_S", "0.1")
        patch.setenv("FORAMEN_FHIR_EXPORT_POLLS_PER_S", "100")
        async with running(module_database_url) as (_, client):
            yield Api(client)


async def test_the_export_of_a_project(api: Api) -> None:
    await api.put_ok(
        {
            "resourceType": "Patient",
            "id": "geheim-1",
            "name": [{"family": "Zqgeheim"}],
            "birthDate": "1980-02-29",
            "telecom": [{"system": "phone", "value": "13800001111"}],
        }
    )
    await api.put_ok(
        {
            "resourceType": "Observation",
            "id": "geheim-o",
            "status": "final",
            "code": {"coding": [LOINC], "text": "Zqgeheim"},
            "subject": {"reference": "Patient/geheim-1"},
        }
    )
    await api.put_ok(
        {
            "resourceType": "Communication",
            "id": "geheim-c",
            "status": "completed",
            "payload": [{"contentString": "Zqgeheim"}],
        }
    )
    await api.delete("/fhir/Communication/geheim-c")
    found: dict[str, dict[str, Any]] = {}
    for project in ("one", "two"):
        manifest = await exported(api, f"$export?_pseudonymise={project}&_since=2020-01-01T00:00:00Z")
        assert manifest["extension"] == {"pseudonymised": project}
        assert manifest["deleted"] == []
        assert {item["type"] for item in manifest["output"]} <= covered_types()
        rows = await lines(api, manifest)
        text = orjson.dumps(rows).decode() + orjson.dumps(manifest).decode()
        for hidden in ("geheim", "1980-02-29", "13800001111"):
            assert hidden not in text
        found[project] = {
            "patient": rows["Patient"][0]["id"],
            "subject": rows["Observation"][0]["subject"]["reference"],
        }
        assert found[project]["subject"] == f"Patient/{found[project]['patient']}"
    assert found["one"]["patient"] != found["two"]["patient"]
    refused(await api.get("/fhir/$export?_pseudonymise=three", **ASYNC), 400, "not-found")
    refused(await api.get("/fhir/$export?_pseudonymise=one&_type=Communication", **ASYNC), 400, "not-supported")
