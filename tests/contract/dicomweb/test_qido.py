"""QIDO-RS: matching, paging, levels, and no silent answer to what was not asked.

DICOM PS3.18 §10.6
"""

from __future__ import annotations

import pytest

from tests.builders.dicom import series
from tests.contract.dicomweb.conftest import Gateway

pytestmark = pytest.mark.requirement("PS3.18 10.6 Search transaction")


@pytest.fixture(scope="module")
async def three(gateway: Gateway) -> list[str]:
    """Studies of 3 January, 2 January and 1 January 2025, newest first."""
    rows = [
        ("SYN-51", "LI^LEI=李^雷=", "20250103", "Alpha"),
        ("SYN-52", "HAN^MEIMEI", "20250102", "Beta_1"),
        ("SYN-53", "LIU^WEI", "20250101", "Beta%2"),
    ]
    uids = []
    for seed, (patient, name, date, text) in enumerate(rows, start=51):
        changes = {"patient_id": patient, "patient_name": name, "study_date": date, "study_description": text}
        datasets = series(2, seed=seed, **changes)
        assert (await gateway.store(*datasets)).status_code == 200
        uids.append(datasets[0].StudyInstanceUID)
    return uids


async def found(gateway: Gateway, query: str, level: str = "studies") -> list[str]:
    answer = await gateway.http.get(f"/{level}?{query}&StudyDate=20250101-20250103", headers=gateway.reader)
    assert answer.status_code == 200, answer.text
    return [item["0020000D"]["Value"][0] for item in answer.json()]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [0, 1, 2]),
        ("PatientID=SYN-52", [1]),
        ("00100020=SYN-52", [1]),
        ("PatientName=li*", [0, 2]),
        ("PatientName=李*", [0]),
        ("PatientName=Li^Lei", [0]),
        ("PatientName=LI?%5EWEI", [2]),
        ("StudyDescription=Beta_*", [1]),
        ("StudyDescription=Beta%25*", [2]),
        ("StudyDescription=*a*", [0, 1, 2]),
        ("StudyDescription=alpha", []),
        ("ModalitiesInStudy=MR", [0, 1, 2]),
        ("ModalitiesInStudy=CT", []),
        ("ModalitiesInStudy=CT,MR", [0, 1, 2]),
        ("AccessionNumber=", [0, 1, 2]),
        ("limit=1", [0]),
        ("limit=1&offset=1", [1]),
        ("offset=3", []),
        ("includefield=all&includefield=PatientSex,00080090", [0, 1, 2]),
    ],
)
async def test_matching(gateway: Gateway, three: list[str], query: str, expected: list[int]):
    assert await found(gateway, query) == [three[index] for index in expected]


@pytest.mark.parametrize(
    ("dates", "expected"), [("20250102", [1]), ("20250102-", [0, 1]), ("-20250101", [2]), ("20250102-20250103", [0, 1])]
)
async def test_date_ranges(gateway: Gateway, three: list[str], dates: str, expected: list[int]):
    ids = "PatientID=SYN-5?"
    answer = await gateway.http.get(f"/studies?{ids}&StudyDate={dates}", headers=gateway.reader)
    assert [item["0020000D"]["Value"][0] for item in answer.json()] == [three[index] for index in expected]


async def test_uid_lists(gateway: Gateway, three: list[str]):
    assert await found(gateway, f"StudyInstanceUID={three[0]},{three[2]}") == [three[0], three[2]]


async def test_study_level_tells_counts_and_where_to_retrieve(gateway: Gateway, three: list[str]):
    (study,) = (await gateway.http.get("/studies?PatientID=SYN-51", headers=gateway.reader)).json()
    assert study["00201206"]["Value"] == [1]
    assert study["00201208"]["Value"] == [2]
    assert study["00080061"]["Value"] == ["MR"]
    assert study["00081190"]["Value"] == [f"http://127.0.0.1:8000/dicom-web/studies/{three[0]}"]
    assert study["00100010"]["Value"] == [{"Alphabetic": "LI^LEI", "Ideographic": "李^雷"}]
    assert study["00080050"] == {"vr": "SH"}


async def test_deeper_levels_carry_their_parents_where_the_url_does_not_name_them(gateway: Gateway, three: list[str]):
    (entry,) = (await gateway.http.get(f"/series?StudyInstanceUID={three[0]}", headers=gateway.reader)).json()
    assert entry["00201209"]["Value"] == [2]
    assert entry["00100020"]["Value"] == ["SYN-51"]
    (named,) = (await gateway.http.get(f"/studies/{three[0]}/series", headers=gateway.reader)).json()
    assert "00100020" not in named
    assert named["0020000D"]["Value"] == [three[0]]
    path = f"/studies/{three[0]}/series/{entry['0020000E']['Value'][0]}/instances"
    instances = (await gateway.http.get(path, headers=gateway.reader)).json()
    assert [item["00200013"]["Value"] for item in instances] == [[1], [2]]
    assert (await gateway.http.get(f"{path}?InstanceNumber=2", headers=gateway.reader)).json() == instances[1:]


async def test_more_results_are_announced(gateway: Gateway, three: list[str]):
    answer = await gateway.http.get("/studies?PatientID=SYN-5*&limit=2", headers=gateway.reader)
    assert len(answer.json()) == 2
    assert answer.headers["warning"].startswith("299")
    whole = await gateway.http.get("/studies?PatientID=SYN-5*&limit=3", headers=gateway.reader)
    assert "warning" not in whole.headers


@pytest.mark.parametrize(
    "query",
    [
        "Nonsense=1",
        "Rows=3",
        "SeriesDescription=x",
        "Modality=MR",
        "limit=-1",
        "limit=x",
        "StudyDate=a-b",
        "includefield=Nonsense",
    ],
)
async def test_what_cannot_be_matched_on_is_400_and_never_ignored(gateway: Gateway, three: list[str], query: str):
    answer = await gateway.http.get(f"/studies?{query}", headers=gateway.reader)
    assert answer.status_code == 400
    assert answer.json()["issue"][0]["code"] == "invalid"
