"""Profiles on writes: packages installed at run time (IPA), R4's own, what users store, Foramen's for AI output."""

from __future__ import annotations

import copy
import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from fhir_server.profiles.shipped import own_profiles
from tests.conftest import TEST_DATA
from tests.contract.fhir.api import Api, ai_observation, observation, patient_resource, refused, running
from tests.unit.ai_services.results.test_bundle import bundle as ai_bundle

pytestmark = pytest.mark.fhir_definitions
ADMINISTRATOR = "system/*.cruds foramen/admin"
IPA = "http://hl7.org/fhir/uv/ipa/StructureDefinition"
IPA_FILE = TEST_DATA.parent / "fhir" / "ipa_v100.tgz"


async def install(api: Api, body: bytes, kind: str = "application/gzip") -> httpx.Response:
    return await api.as_(ADMINISTRATOR).send("POST", "/fhir/$install-package", body, content_type=kind)


def archive(files: dict[str, Any], **members: tarfile.TarInfo) -> bytes:
    """A gzipped tarball of JSON files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        for name, content in files.items():
            text = content if isinstance(content, bytes) else json.dumps(content).encode()
            member = tarfile.TarInfo(name)
            member.size = len(text)
            packed.addfile(member, io.BytesIO(text))
        for member in members.values():
            packed.addfile(member)
    return out.getvalue()


def places(outcome: dict[str, Any]) -> set[tuple[str, str]]:
    return {(i["code"], i["expression"][0]) for i in outcome["issue"] if i["severity"] == "error"}


def ipa_examples() -> list[dict[str, Any]]:
    with tarfile.open(IPA_FILE) as packed:
        found = [packed.extractfile(name) for name in packed.getnames() if name.startswith("package/example/")]
        return [json.loads(stream.read()) for stream in found if stream is not None]


@pytest.fixture
def ipa_patient() -> dict[str, Any]:
    return {**patient_resource(), "meta": {"profile": [f"{IPA}/ipa-patient"]}, "active": True}


async def test_a_profile_holds_once_its_package_is_installed(api: Api, ipa_patient: dict[str, Any]) -> None:
    anonymous = {name: value for name, value in ipa_patient.items() if name != "identifier"}
    assert (await api.post("/fhir/Patient", anonymous)).status_code == 201  # Not known yet: a warning at most.
    answer = await install(api, IPA_FILE.read_bytes())
    assert answer.status_code == 200, answer.text
    told = {p["name"]: next(v for k, v in p.items() if k != "name") for p in answer.json()["parameter"]}
    assert told == {"name": "hl7.fhir.uv.ipa", "version": "1.0.0", "resources": 16}
    assert (await api.post("/fhir/Patient", ipa_patient)).status_code == 201
    outcome = refused(await api.post("/fhir/Patient", anonymous), 422, "required")
    assert places(outcome) == {("required", "Patient.identifier")}
    unnamed = {**ipa_patient, "name": [{"use": "official"}]}
    outcome = refused(await api.post("/fhir/Patient", unnamed), 422, "invariant")
    assert places(outcome) == {("invariant", "Patient.name[0]")}
    in_bundle = await api.transaction({"request": {"method": "POST", "url": "Patient"}, "resource": anonymous})
    assert places(refused(in_bundle, 422, "required")) == {("required", "Bundle.entry[0].resource.identifier")}


async def test_ipa_examples_conform_and_their_mutations_do_not(module_api: Api) -> None:
    assert (await install(module_api, IPA_FILE.read_bytes(), "application/octet-stream")).status_code == 200
    for example in ipa_examples():
        response = await module_api.post(f"/fhir/{example['resourceType']}", example)
        assert response.status_code == 201, (example["id"], response.text)
    lab = next(e for e in ipa_examples() if e["id"] == "LabExample1")
    broken = {name: value for name, value in lab.items() if name not in ("subject", "code")}
    broken["code"] = {"coding": [{"display": "no code"}]}
    outcome = refused(await module_api.post("/fhir/Observation", broken), 422, "required")
    assert ("required", "Observation.subject") in places(outcome)
    elsewhere = {**lab, "subject": {"reference": "Device/1"}}
    outcome = refused(await module_api.post("/fhir/Observation", elsewhere), 422, "value")
    assert places(outcome) == {("value", "Observation.subject.reference")}


async def test_slices_patterns_and_types_of_r4s_own_profiles(module_api: Api) -> None:
    vital = {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}

    def component(code: str, value: float) -> dict[str, Any]:
        unit = {"value": value, "unit": "mmHg", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"}
        return {"code": {"coding": [{"system": "http://loinc.org", "code": code}]}, "valueQuantity": unit}

    good = {
        "resourceType": "Observation",
        "meta": {"profile": ["http://hl7.org/fhir/StructureDefinition/bp"]},
        "status": "final",
        "category": [{"coding": [vital]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "85354-9"}]},
        "subject": {"reference": "Patient/1"},
        "effectiveDateTime": "2026-11-22",
        "component": [component("8480-6", 120), component("8462-4", 80)],
    }
    assert (await module_api.post("/fhir/Observation", good)).status_code == 201

    async def faults(**changed: Any) -> set[tuple[str, str]]:
        return places(refused_any(await module_api.post("/fhir/Observation", {**copy.deepcopy(good), **changed})))

    assert ("required", "Observation.component") in await faults(component=[component("8480-6", 120)])
    assert ("required", "Observation.category") in await faults(category=[{"text": "vital signs"}])
    wrong = component("8480-6", 120)
    wrong["valueQuantity"]["code"] = "kPa"
    assert ("value", "Observation.component[0].valueQuantity.code") in await faults(
        component=[wrong, component("8462-4", 80)]
    )
    text = {"code": component("8480-6", 1)["code"], "valueString": "120"}
    found = await faults(component=[text, component("8462-4", 80)])
    assert ("structure", "Observation.component[0].valueString") in found
    assert ("required", "Observation.code.coding") in await faults(
        code={"coding": [{"system": "http://loinc.org", "code": "0-0"}]}
    )


def refused_any(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 422, response.text
    outcome: dict[str, Any] = response.json()
    return outcome


async def test_a_stored_differential_is_enforced(module_api: Api) -> None:
    url = "https://foramen.example/fhir/StructureDefinition/test-closed"
    profile = {
        "resourceType": "StructureDefinition",
        "url": url,
        "name": "TestClosed",
        "status": "active",
        "kind": "resource",
        "abstract": False,
        "type": "Patient",
        "baseDefinition": "http://hl7.org/fhir/StructureDefinition/Patient",
        "derivation": "constraint",
        "differential": {
            "element": [
                {"id": "Patient", "path": "Patient"},
                {
                    "id": "Patient.identifier",
                    "path": "Patient.identifier",
                    "slicing": {"discriminator": [{"type": "value", "path": "system"}], "rules": "closed"},
                },
                {
                    "id": "Patient.identifier:mrn",
                    "path": "Patient.identifier",
                    "sliceName": "mrn",
                    "min": 1,
                    "max": "1",
                },
                {"id": "Patient.identifier:mrn.system", "path": "Patient.identifier.system", "fixedUri": "urn:mrn"},
                {"id": "Patient.identifier:mrn.value", "path": "Patient.identifier.value", "min": 1, "maxLength": 4},
                {"id": "Patient.gender", "path": "Patient.gender", "fixedCode": "female"},
                {"id": "Patient.birthDate", "path": "Patient.birthDate", "maxValueDate": "2000-01-01"},
                {"id": "Patient.deceasedBoolean", "path": "Patient.deceasedBoolean", "min": 0},
                {"id": "Patient.photo", "path": "Patient.photo", "max": "0"},
            ]
        },
    }
    await module_api.create(profile)
    good = {**patient_resource(), "meta": {"profile": [url]}, "identifier": [{"system": "urn:mrn", "value": "1"}]}

    async def faults(**changed: Any) -> set[tuple[str, str]]:
        return places(refused_any(await module_api.post("/fhir/Patient", {**good, **changed})))

    response = await module_api.post("/fhir/Patient", good)
    assert response.status_code == 201, response.text
    other = {"system": "urn:other", "value": "2"}
    assert await faults(identifier=[*good["identifier"], other]) == {("structure", "Patient.identifier[1]")}
    assert await faults(identifier=[other]) == {
        ("structure", "Patient.identifier[0]"),
        ("required", "Patient.identifier"),
    }
    assert await faults(identifier=good["identifier"] * 2) == {("structure", "Patient.identifier")}
    assert await faults(identifier=[{"system": "urn:mrn"}]) == {("required", "Patient.identifier[0].value")}
    assert await faults(identifier=[{"system": "urn:mrn", "value": "12345"}]) == {
        ("too-long", "Patient.identifier[0].value")
    }
    assert await faults(gender="male") == {("value", "Patient.gender")}
    assert await faults(birthDate="2001") == {("value", "Patient.birthDate")}
    assert await faults(photo=[{"url": "http://example.org/x"}]) == {("structure", "Patient.photo")}


async def test_required_bindings_ask_the_terminology(module_api: Api) -> None:
    url = "https://foramen.example/fhir/StructureDefinition/test-bound"
    value_set = "https://foramen.example/fhir/ValueSet/test-marital"
    base = {"status": "active", "name": "Test"}
    include = [{"system": "urn:marital", "concept": [{"code": "M"}]}]
    profile = {
        **base,
        "resourceType": "StructureDefinition",
        "url": url,
        "kind": "resource",
        "abstract": False,
        "type": "Patient",
        "baseDefinition": "http://hl7.org/fhir/StructureDefinition/Patient",
        "derivation": "constraint",
        "differential": {
            "element": [
                {
                    "id": "Patient.maritalStatus",
                    "path": "Patient.maritalStatus",
                    "binding": {"strength": "required", "valueSet": value_set},
                }
            ]
        },
    }
    await module_api.create(profile)
    claim = {**patient_resource(), "meta": {"profile": [url]}}
    single = {**claim, "maritalStatus": {"coding": [{"system": "urn:marital", "code": "S"}]}}
    # The value set is not known yet: nobody can say, so it is not refused, and it is said.
    assert (await module_api.post("/fhir/Patient", single)).status_code == 201
    told = (await module_api.post("/fhir/Patient/$validate", single)).json()["issue"]
    assert ("information", "Patient.maritalStatus") in {(i["severity"], i.get("expression", [""])[0]) for i in told}
    await module_api.create({**base, "resourceType": "ValueSet", "url": value_set, "compose": {"include": include}})
    outcome = refused(await module_api.post("/fhir/Patient", single), 422, "code-invalid")
    assert places(outcome) == {("code-invalid", "Patient.maritalStatus")}
    married = {**claim, "maritalStatus": {"coding": [{"system": "urn:marital", "code": "M"}]}}
    assert (await module_api.post("/fhir/Patient", married)).status_code == 201


async def test_unknown_profiles_warn_or_refuse(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = {**patient_resource(), "meta": {"profile": ["http://example.org/unknown"]}}
    async with running(database_url) as (_, http):
        api = Api(http)
        assert (await api.post("/fhir/Patient", claim)).status_code == 201
        told = (await api.post("/fhir/Patient/$validate", claim)).json()["issue"]
        assert [i["severity"] for i in told] == ["warning"]
    monkeypatch.setenv("FORAMEN_FHIR_UNKNOWN_PROFILE", "refuse")
    async with running(database_url) as (_, http):
        outcome = refused(await Api(http).post("/fhir/Patient", claim), 422, "not-found")
        assert outcome["issue"][0]["expression"] == ["Patient.meta.profile[0]"]


async def test_ai_output_is_held_against_our_profiles_unclaimed(module_api: Api) -> None:
    assert (await module_api.post("/fhir/Observation", ai_observation("Patient/1"))).status_code == 201
    bare = {**observation("Patient/1"), "meta": ai_observation("Patient/1")["meta"]}
    found = places(refused_any(await module_api.post("/fhir/Observation", bare)))
    assert found == {("required", "Observation.device"), ("invariant", "Observation")}
    unit = ai_observation("Patient/1", valueQuantity={"value": 1, "unit": "mm"})
    del unit["valueString"]
    found = places(refused_any(await module_api.post("/fhir/Observation", unit)))
    assert found == {
        ("required", "Observation.valueQuantity.system"),
        ("required", "Observation.valueQuantity.code"),
    }
    # The same without the tag is no AI output, and free.
    assert (await module_api.post("/fhir/Observation", observation("Patient/1"))).status_code == 201


async def test_what_the_ai_services_write_meets_our_profiles(module_api: Api) -> None:
    made = ai_bundle()
    checked = set()
    for item in made["entry"]:
        resource = item["resource"]
        response = await module_api.post(f"/fhir/{resource['resourceType']}/$validate", resource)
        assert [i for i in response.json()["issue"] if i["severity"] == "error"] == [], response.text
        checked.add(resource["resourceType"])
    assert checked >= set(own_profiles()) - {"RiskAssessment"}


async def test_another_process_sees_a_new_package(database_url: str, ipa_patient: dict[str, Any]) -> None:
    del ipa_patient["identifier"]
    async with running(database_url) as (_, first), running(database_url) as (service, second):
        assert (await Api(second).post("/fhir/Patient", ipa_patient)).status_code == 201
        assert (await install(Api(first), IPA_FILE.read_bytes())).status_code == 200
        service._packages._checked = 0.0  # A second later.
        refused(await Api(second).post("/fhir/Patient", ipa_patient), 422, "required")


MANIFEST = {"name": "test.package", "version": "1.0.0", "fhirVersions": ["4.0.1"]}
VALUE_SET = {"resourceType": "ValueSet", "url": "urn:test:vs", "status": "active"}


async def test_only_an_administrator_installs(module_api: Api) -> None:
    body = archive({"package/package.json": MANIFEST, "package/a.json": VALUE_SET})
    sent = await module_api.send("POST", "/fhir/$install-package", body, content_type="application/gzip")
    refused(sent, 403, "forbidden")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"not a tarball", 400, "structure"),
        (gzip.compress(b"not a tarball", mtime=0), 400, "structure"),
        (archive({"package/a.json": VALUE_SET}), 422, "required"),
        (archive({"package/package.json": MANIFEST}), 422, "required"),
        (
            archive({"package/package.json": {**MANIFEST, "fhirVersions": ["5.0.0"]}, "package/a.json": VALUE_SET}),
            422,
            "not-supported",
        ),
        (archive({"package/package.json": MANIFEST, "package/a.json": b"{"}), 422, "structure"),
        (archive({"package/package.json": MANIFEST, "../a.json": VALUE_SET}), 400, "security"),
        (archive({"package/package.json": MANIFEST, "/etc/a.json": VALUE_SET}), 400, "security"),
        (
            archive(
                {
                    "package/package.json": MANIFEST,
                    "package/a.json": {
                        "resourceType": "StructureDefinition",
                        "url": "urn:x",
                        "type": "Patient",
                        "snapshot": {
                            "element": [{"id": "Patient.name", "path": "Patient.name"}, {"id": "X.y", "path": "X.y"}]
                        },
                    },
                }
            ),
            422,
            "structure",
        ),
    ],
)
async def test_bad_packages_are_refused_and_leave_nothing(module_api: Api, body: bytes, status: int, code: str) -> None:
    refused(await install(module_api, body), status, code)


async def test_bombs_links_and_wrong_types_are_refused(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tarfile.TarInfo("package/link.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    monkeypatch.setenv("FORAMEN_FHIR_MAX_PACKAGE_UNPACKED_BYTES", "100000")
    monkeypatch.setenv("FORAMEN_FHIR_MAX_PACKAGE_BYTES", "20000")
    monkeypatch.setenv("FORAMEN_FHIR_MAX_PACKAGE_ENTRIES", "50")
    async with running(database_url) as (_, http):
        api = Api(http)
        bomb = archive({"package/package.json": MANIFEST, "package/a.json": b" " * 1_000_000})
        refused(await install(api, bomb), 400, "too-costly")
        many = archive({f"package/{n}.json": b"" for n in range(60)})
        refused(await install(api, many), 400, "too-costly")
        refused(await install(api, archive({"package/package.json": MANIFEST}, link=link)), 400, "security")
        refused(await install(api, b"x" * 30_000), 413, "too-long")
        refused(await install(api, many, "application/json"), 415, "not-supported")


async def test_supported_profiles_are_found_by_validate(module_api: Api) -> None:
    for resource_type, urls in own_profiles().items():
        for url in urls:
            sent = {"resourceType": resource_type}
            response = await module_api.post(f"/fhir/{resource_type}/$validate?profile={url}", orjson.dumps(sent))
            assert response.status_code == 200, response.text
            assert any(i["severity"] == "error" for i in response.json()["issue"])


def test_shipped_definitions_are_all_there() -> None:
    folder = Path(__file__).parents[3] / "fhir_server" / "profiles"
    assert len(list(folder.glob("ai-*.json"))) == sum(len(urls) for urls in own_profiles().values())
