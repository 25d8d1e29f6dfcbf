"""QIDO-RS: every attribute of a level is matched and returned; what was asked comes back and no more.

DICOM PS3.18 §8.3.4, §10.6.3; PS3.4 §C.2.2.2; PS3.5 §7.8.1 (private blocks)
"""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from pydicom import Dataset

from terminology import systems
from tests.builders.dicom import series
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import Gateway

XML = 'multipart/related; type="application/dicom+xml"'
NATIVE = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"


def _item(**values: str) -> Dataset:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


@pytest.fixture(scope="module")
async def pair(gateway: Gateway) -> list[str]:
    """Two studies of one instance: the vendor's private block lies elsewhere in each."""
    uids = []
    rows = [
        ("SYN-41", "MÜLLER^Jörg=穆勒=", "083000", 0x10, "PUMP-7"),
        ("SYN-42", "Muster^Jürgen", "171500.5", 0x12, "PUMP-8"),
    ]
    for seed, (patient, name, time, block, code) in enumerate(rows, start=41):
        (dataset,) = series(1, seed=seed, patient_id=patient, patient_name=name, study_date=f"202403{seed - 40:02}")
        dataset.StudyTime, dataset.AccessionNumber = time, f"ACC-{seed}"
        dataset.EthnicGroup, dataset.PatientComments = f"Group {seed}", "SYNTHETIC"
        dataset.InstitutionName, dataset.StationName = "SYNTHETIC Hospital", f"MR{seed}"
        dataset.ImageComments, dataset.EchoTime = "first=50%", "98.50"
        dataset.AcquisitionDateTime = f"2024030{seed - 40}083000.5+0800"
        dataset.RequestAttributesSequence = [
            _item(RequestedProcedureID=f"RP-{seed}", ScheduledProcedureStepID="A"),
            _item(RequestedProcedureID="RP-X", ScheduledProcedureStepID=f"B{seed}"),
        ]
        private = dataset.private_block(0x0099, "OTHER", create=True) if block == 0x12 else None
        if private is not None:
            private.add_new(0x01, "LO", "PUMP-7")
            dataset.private_block(0x0099, "OTHER 2", create=True).add_new(0x01, "LO", "x")
        dataset.private_block(0x0099, "FORAMEN TEST 1", create=True).add_new(0x01, "LO", code)
        if seed == 42:
            dataset.StudyID = ""
        assert (await gateway.store(dataset)).status_code == 200
        uids.append(dataset.StudyInstanceUID)
    return uids


async def ask(gateway: Gateway, path: str, expected: int = 200, **headers: str) -> Any:
    answer = await gateway.http.get(path, headers=gateway.reader | headers)
    assert answer.status_code == expected, answer.text
    return answer


async def which(gateway: Gateway, pair: list[str], level: str, query: str) -> list[int]:
    joined = f"/{level}?{query}&StudyInstanceUID={','.join(pair)}"
    found = (await ask(gateway, joined)).json()
    return sorted(pair.index(item["0020000D"]["Value"][0]) for item in found)


@pytest.mark.requirement("PS3.18 8.3.4.1: every attribute of the level is matched, PS3.4 C.2.2.2.1 and C.2.2.2.4")
@pytest.mark.parametrize(
    ("level", "query", "expected"),
    [
        ("studies", "EthnicGroup=Group 41", [0]),
        ("studies", "EthnicGroup=*2", [1]),
        ("studies", "EthnicGroup=group 41", []),
        ("studies", "AccessionNumber=ACC-4?", [0, 1]),
        ("studies", "NumberOfStudyRelatedInstances=1", [0, 1]),
        ("studies", "NumberOfStudyRelatedInstances=2", []),
        ("studies", "ModalitiesInStudy=M?", [0, 1]),
        ("series", "InstitutionName=SYNTHETIC*&StationName=MR42", [1]),
        ("series", "EthnicGroup=Group 42", [1]),
        ("series", "NumberOfSeriesRelatedInstances=1", [0, 1]),
        ("instances", "ImageComments=first=50%25", [0, 1]),
        ("instances", "ImageComments=first%3D50%25*", [0, 1]),
        ("instances", "ImageComments=first_50*", []),
        ("instances", "EchoTime=98.5", [0, 1]),
        ("instances", "EchoTime=98.6", []),
        ("instances", "StationName=MR41&Rows=16", [0]),
        ("instances", "SOPClassUID=1.2.840.10008.5.1.4.1.1.4,1.2.3", [0, 1]),
    ],
)
async def test_every_attribute_of_the_level(gateway: Gateway, pair: list[str], level: str, query: str, expected: Any):
    assert await which(gateway, pair, level, query) == expected


@pytest.mark.requirement("PS3.18 10.6.3.3.1: attributes of a study; F.2: tags in order")
async def test_studies_as_the_database_writes_them_are_those_of_the_model(gateway: Gateway, pair: list[str]):
    (odd,) = series(1, seed=43, patient_id='SYN-"43"', patient_name='QUOTE^"O\'Neil"=引', study_date="20240303")
    odd.StudyDescription, odd.StudyID = 'a "b" {c} %d', None
    assert (await gateway.store(odd)).status_code == 200
    query = "/studies?StudyDate=20240301-20240303&StudyDescription=&ModalitiesInStudy=&SOPClassesInStudy="
    written = (await ask(gateway, query)).json()
    modelled = (await ask(gateway, f"{query}&includefield=all")).json()
    assert [item["0020000D"]["Value"][0] for item in written] == [odd.StudyInstanceUID, *reversed(pair)]
    assert [item["0020000D"] for item in modelled] == [item["0020000D"] for item in written]
    for one, whole in zip(written, modelled, strict=True):
        assert list(one) == sorted(one)
        assert one == {tag: whole[tag] for tag in one}
        assert {"00080020", "00080061", "00080062", "00081190", "00100010", "00201208"} <= set(one)
    assert written[0]["00081030"]["Value"] == ['a "b" {c} %d']


@pytest.mark.requirement("PS3.4 C.2.2.2.1.1: person names without regard to case and accents; PS3.18 8.3.4.2 fuzzy")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("PatientName=muller^jorg", [0]),
        ("PatientName=MÜLLER^*", [0]),
        ("PatientName=*uster*", [1]),
        ("PatientName=穆勒", [0]),
        ("PatientName=*勒", [0]),
        ("PatientName=muller^jorg=穆勒", [0]),
        ("PatientName=jorg", []),
        ("PatientName=jorg&fuzzymatching=true", [0]),
        ("PatientName=J&fuzzymatching=true", [0, 1]),
        ("PatientName=jür mus&fuzzymatching=true", [1]),
        ("PatientName=uster&fuzzymatching=true", []),
        ("PatientName='):* | a&fuzzymatching=true", []),
        ("PatientName=mule&fuzzymatching=false", []),
    ],
)
async def test_names(gateway: Gateway, pair: list[str], query: str, expected: list[int]):
    assert await which(gateway, pair, "studies", query) == expected


@pytest.mark.requirement("PS3.4 C.2.2.2.5: range matching of dates, times, date-times, and of both combined")
@pytest.mark.parametrize(
    ("level", "query", "expected"),
    [
        ("studies", "StudyTime=0830", [0]),
        ("studies", "StudyTime=08-09", [0]),
        ("studies", "StudyTime=1715-", [1]),
        ("studies", "StudyDate=20240301-20240302&StudyTime=0900-0800", []),
        ("studies", "StudyDate=20240301-20240302&StudyTime=080000-17", [0, 1]),
        ("studies", "StudyDate=20240301-20240302&StudyTime=09-1714", []),
        ("studies", "StudyDate=20240301-20240302&StudyTime=0800-1714", [0]),
        ("instances", "AcquisitionDateTime=20240301", [0]),
        ("instances", "AcquisitionDateTime=20240302-", [1]),
        ("instances", "AcquisitionDateTime=2023-202403010831", [0]),
    ],
)
async def test_ranges(gateway: Gateway, pair: list[str], level: str, query: str, expected: list[int]):
    assert await which(gateway, pair, level, query) == expected


@pytest.mark.requirement("PS3.4 C.2.2.2.6: sequence matching, item by item")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("RequestAttributesSequence.RequestedProcedureID=RP-41", [0]),
        ("00400275.00401001=RP-X", [0, 1]),
        (
            "RequestAttributesSequence.RequestedProcedureID=RP-X&RequestAttributesSequence.ScheduledProcedureStepID=B4*",
            [0, 1],
        ),
        (
            "RequestAttributesSequence.RequestedProcedureID=RP-41&RequestAttributesSequence.ScheduledProcedureStepID=A",
            [0],
        ),
        (
            "RequestAttributesSequence.RequestedProcedureID=RP-X&RequestAttributesSequence.ScheduledProcedureStepID=A",
            [],
        ),
    ],
)
async def test_sequences(gateway: Gateway, pair: list[str], query: str, expected: list[int]):
    assert await which(gateway, pair, "series", query) == expected


@pytest.mark.requirement("PS3.18 8.3.4.5: empty value matching; 8.3.4.6: multiple value matching")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('StudyID=""&emptyvaluematching=true', [1]),
        ('StudyID=""', []),
        ('PatientMotherBirthName=""&emptyvaluematching=true', [0, 1]),
        ('AccessionNumber=""&emptyvaluematching=true', []),
        ("AccessionNumber=ACC-41\\ACC-42&multiplevaluematching=true", [0, 1]),
        ("EthnicGroup=Group 41\\none&multiplevaluematching=true", [0]),
        ("AccessionNumber=ACC-41\\ACC-42", []),
    ],
)
async def test_empty_and_multiple_values(gateway: Gateway, pair: list[str], query: str, expected: list[int]):
    # StudyID of the first study comes from the builder; absent and empty are alike.
    if query.startswith("StudyID") and expected:
        (first,) = (await ask(gateway, f"/studies?StudyInstanceUID={pair[0]}")).json()
        expected = expected if first["00200010"].get("Value") else [0, 1]
    assert await which(gateway, pair, "studies", query) == expected


@pytest.mark.requirement("PS3.18 8.3.4.3: private attributes by their creator, whatever their block")
async def test_private_attributes_follow_their_creator(gateway: Gateway, pair: list[str]):
    creator = "00990010=FORAMEN TEST 1"
    assert await which(gateway, pair, "instances", f"00991001=PUMP-7&{creator}") == [0]
    assert await which(gateway, pair, "instances", f"00991001=PUMP-*&{creator}") == [0, 1]
    path = f"/instances?StudyInstanceUID={pair[1]}&includefield=00991001&{creator}"
    (found,) = (await ask(gateway, path)).json()
    assert found["00991201"]["Value"] == ["PUMP-8"]
    assert found["00990012"]["Value"] == ["FORAMEN TEST 1"]
    assert "00991001" not in found
    assert "00990010" not in found
    await ask(gateway, "/instances?includefield=00991001", 400)
    await ask(gateway, "/instances?00991001=PUMP-7", 400)


@pytest.fixture(scope="module")
async def labelled(gateway: Gateway) -> list[str]:
    """Three studies of two patients; the first two carry labels in the record."""
    uids = []
    for seed, labels in ((46, ("随访", "A,B|C")), (47, ("随访",)), (48, ())):
        patient = "SYN-46" if seed != 47 else "SYN-47"
        await gateway.add_patient(patient, patient.lower())
        (dataset,) = series(1, seed=seed, patient_id=patient, study_date=f"202405{seed - 40:02}")
        assert (await gateway.store(dataset)).status_code == 200
        await gateway.register(dataset.StudyInstanceUID)
        (resource,) = await gateway.imaging_studies(dataset.StudyInstanceUID)
        for label in labels:
            coding = {"system": systems.IMAGE_LABEL, "code": label, "display": label}
            await gateway.record.add_tag(f"ImagingStudy/{resource['id']}", coding)
        uids.append(dataset.StudyInstanceUID)
    return uids


@pytest.mark.requirement("PS3.18 8.3.4.3: labels of the record as a private attribute, matched on and returned")
async def test_labels(gateway: Gateway, labelled: list[str]):
    creator = "00210010=FORAMEN"

    async def found(query: str, level: str = "studies", **headers: str) -> dict[str, list[str] | None]:
        answer = (await ask(gateway, f"/{level}?{creator}&{query}", **headers)).json()
        return {
            item["0020000D"]["Value"][0]: item.get("00211001", {}).get("Value")
            for item in answer
            if item.get("00210010", {"Value": ["FORAMEN"]})["Value"] == ["FORAMEN"]
        }

    one, two, three = labelled
    assert await found("00211001=随访") == {one: ["A,B|C", "随访"], two: ["随访"]}
    assert await found("00211001=A,B|C", "series") == {one: ["A,B|C", "随访"]}
    assert await found("00211001=随访&PatientID=SYN-46") == {one: ["A,B|C", "随访"]}
    assert await found("00211001=nobody's") == {}
    either = await found("00211001=nobody's%5CA,B|C&multiplevaluematching=true")
    assert list(either) == [one]
    listed = f"StudyInstanceUID={','.join(labelled)}"
    assert await found(f"includefield=00211001&{listed}") == {one: ["A,B|C", "随访"], two: ["随访"], three: None}
    assert await found(listed) == {one: None, two: None, three: None}
    # Access is decided by the search, whatever the record says.
    of_one = bearer("patient/ImagingStudy.rs", patient="syn-47")
    assert await found("00211001=随访", **of_one) == {two: ["随访"]}
    assert await found("00211001=A,B|C", **of_one) == {}
    xml = await ask(gateway, f"/studies?{creator}&00211001=随访", Accept=XML)
    assert "随访" in xml.text
    for wrong in ("00211001=随*", "00211002=x", f"includefield=00211002&{listed}"):
        await ask(gateway, f"/studies?{creator}&{wrong}", 400)


@pytest.mark.requirement("PS3.18 10.6.3.3: required attributes and those asked for, and no others")
async def test_only_what_was_asked_comes_back(gateway: Gateway, pair: list[str]):
    (plain,) = (await ask(gateway, f"/studies?StudyInstanceUID={pair[0]}")).json()
    required = (
        "00080005 00080020 00080030 00080050 00080056 00080061 00080090 00081190 00100010 00100020 00100030 00100040"
    )
    assert set(plain) - {"00080201"} == {*required.split(), "0020000D", "00200010", "00201206", "00201208"}
    (more,) = (await ask(gateway, f"/studies?StudyInstanceUID={pair[0]}&includefield=EthnicGroup,00104000")).json()
    assert {tag for tag in more if tag not in plain} == {"00102160", "00104000"}
    (matched,) = (await ask(gateway, f"/studies?StudyInstanceUID={pair[0]}&EthnicGroup=Group*")).json()
    assert {tag for tag in matched if tag not in plain} == {"00102160"}
    deeper = (await ask(gateway, f"/studies?StudyInstanceUID={pair[0]}&includefield=StationName,Rows")).json()
    assert deeper == [plain]
    (everything,) = (await ask(gateway, f"/instances?StudyInstanceUID={pair[0]}&includefield=all")).json()
    assert {"00102160", "00081010", "00204000", "00991001"} <= set(everything)
    assert "7FE00010" not in everything
    (items,) = (
        await ask(gateway, f"/studies/{pair[0]}/series?includefield=RequestAttributesSequence.ScheduledProcedureStepID")
    ).json()
    assert "00400275" in items
    (classes,) = (await ask(gateway, f"/studies?StudyInstanceUID={pair[0]}&includefield=SOPClassesInStudy")).json()
    assert classes["00080062"]["Value"] == ["1.2.840.10008.5.1.4.1.1.4"]


@pytest.mark.requirement("PS3.18 8.3.4.4: offset and limit, Warning 299; order is stable")
async def test_pages_and_totals(gateway: Gateway, pair: list[str]):
    query = f"/studies?StudyInstanceUID={','.join(pair)}"
    whole = await ask(gateway, query)
    assert whole.headers["x-total-count"] == "2"
    first = await ask(gateway, f"{query}&limit=1")
    assert first.headers["warning"].startswith("299 http")
    assert "x-total-count" not in first.headers
    counted = await ask(gateway, f"{query}&limit=1", Prefer="count=exact")
    assert counted.headers["x-total-count"] == "2"
    last = await ask(gateway, f"{query}&limit=1&offset=1")
    assert first.json() + last.json() == whole.json()
    assert "warning" not in last.headers
    beyond = await ask(gateway, f"{query}&offset=7")
    assert beyond.json() == []
    assert "x-total-count" not in beyond.headers


@pytest.mark.requirement("PS3.18 8.7.4: results as multipart application/dicom+xml, PS3.19 A.1 Native DICOM Model")
async def test_xml(gateway: Gateway, pair: list[str]):
    path = f"/instances?StudyInstanceUID={','.join(pair)}&includefield=00991001&00990010=FORAMEN TEST 1"
    answer = await ask(gateway, path, Accept=XML)
    boundary = answer.headers["content-type"].partition("boundary=")[2]
    parts = answer.content.split(f"--{boundary}".encode())[1:-1]
    assert len(parts) == 2
    for part in parts:
        head, _, body = part.partition(b"\r\n\r\n")
        assert b"Content-Type: application/dicom+xml" in head
        model = ElementTree.fromstring(body)  # noqa: S314  our own answer
        assert model.tag == f"{NATIVE}NativeDicomModel"
        named = {item.get("keyword"): item for item in model}
        assert named["SOPClassUID"].findtext(f"{NATIVE}Value") == "1.2.840.10008.5.1.4.1.1.4"
        assert named["PatientName"].find(f"{NATIVE}PersonName/{NATIVE}Alphabetic/{NATIVE}FamilyName") is not None
        private = [item for item in model if item.get("privateCreator") == "FORAMEN TEST 1"]
        assert [item.get("tag") for item in private] == ["00990001"]
    assert (await ask(gateway, "/studies?PatientID=SYN-NONE", 204, Accept=XML)).content == b""
    assert (await ask(gateway, "/studies?PatientID=SYN-NONE")).json() == []


@pytest.mark.requirement("PS3.18 10.6.3.1: 400 for parameters that cannot be understood")
@pytest.mark.parametrize(
    "query",
    [
        *("PatientID=a&PatientID=b", "PatientID=a&00100020=a", "fuzzymatching=maybe", "StudyTime=x", "StudyDate=2024-"),
        *("RequestAttributesSequence=x", "NumberOfStudyRelatedSeries=many", "0010002G=x", "emptyvaluematching="),
        *("PatientWeight=1e999999999", "PatientWeight=NaN", "00020010=x.y", "PatientName=a%00b", "limit=99999999999"),
    ],
)
async def test_malformed_parameters(gateway: Gateway, pair: list[str], query: str):
    await ask(gateway, f"/studies?{query}", 400)


async def test_head_is_answered_without_a_body(gateway: Gateway, pair: list[str]):
    answer = await gateway.http.head(f"/studies?StudyInstanceUID={pair[0]}", headers=gateway.reader)
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["x-total-count"] == "1"


@pytest.mark.requirement("PS3.18 10.6.3.1: 413 for a search that is too broad")
async def test_a_search_that_takes_too_long_is_given_up(gateway: Gateway, pair: list[str], monkeypatch):
    hasty = gateway.service._settings.model_copy(update={"qido_longest_s": 1e-6})
    monkeypatch.setattr(gateway.service._qido, "_settings", hasty)
    answer = await ask(gateway, "/studies?PatientName=*a*", 413)
    assert answer.json()["issue"][0]["code"] == "too-costly"
