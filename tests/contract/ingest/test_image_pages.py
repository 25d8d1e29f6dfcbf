"""Search, study, labels, thumbnails and the way into the review app, as a physician uses them (SYNTHETIC)."""

from __future__ import annotations

import re

import pytest
from pydicom import Dataset

from tests.builders.dicom import series
from tests.contract.ingest.conftest import DOCTOR, KEEPER, MOUNT, READER, Site

LABEL = "L4/5 突出, 教学 $1|a"


@pytest.fixture(scope="module")
async def study(site: Site) -> str:
    await site.add_patient("p1", "SYN-41")
    return await site.stored(*lumbar())


def lumbar(**changes: object) -> list[Dataset]:
    values = {"patient_id": "SYN-41", "patient_name": "Wang^Xiaodong=王^小东"}
    return series(3, seed=41, size=(64, 48), **values | changes)


async def search(site: Site, **query: str) -> str:
    browser = await site.signed_in(DOCTOR)
    response = await browser.http.get(f"{MOUNT}/", params=query)
    assert response.status_code in (200, 400), response.text
    return response.text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, True),
        ({"patient_id": "SYN-41"}, True),
        ({"patient_id": "SYN-42"}, False),
        ({"name": "王小东"}, True),
        ({"name": "东小"}, False),
        ({"name": "王"}, True),
        ({"name": "wang"}, True),
        ({"since": "2026-01-05", "until": "2026-01-05"}, True),
        ({"since": "2026-01-06"}, False),
        ({"until": "2026-01-04"}, False),
        ({"modality": "MR"}, True),
        ({"modality": "CT"}, False),
        ({"body_part": "lspine"}, True),
        ({"body_part": "HEAD"}, False),
        ({"description": "Lumbar"}, True),
        ({"description": "knee"}, False),
        ({"institution": "north"}, True),
        ({"institution": "south"}, False),
        ({"label": "no such label"}, False),
        ({"institution": "north", "modality": "MR", "body_part": "LSPINE", "patient_id": "SYN-41"}, True),
        ({"institution": "north", "modality": "CT"}, False),
    ],
    ids=str,
)
async def test_each_field_narrows_the_search(site: Site, study: str, query: dict[str, str], found: bool):
    page = await search(site, **query)
    assert (f"{MOUNT}/studies/{study}" in page) is found
    assert ("No study matches" in page) is not found


@pytest.mark.parametrize(
    "query", [{"since": "5.1.2026"}, {"modality": "XX"}, {"page": "0"}, {"page": "99999"}], ids=str
)
async def test_a_field_that_is_none_is_said_and_nothing_is_shown(site: Site, study: str, query: dict[str, str]):
    page = await search(site, **query)
    assert 'role="alert"' in page
    assert study not in page


async def test_a_label_is_added_found_in_both_places_and_removed(site: Site, study: str):
    browser = await site.signed_in(DOCTOR)
    csrf = await browser.csrf()
    answer = await browser.http.post(f"{MOUNT}/studies/{study}/labels", data={"csrf": csrf, "label": f"  {LABEL} "})
    assert (answer.status_code, answer.headers["location"]) == (303, f"{MOUNT}/studies/{study}?done=label_added")
    assert "The label was added" in (await browser.http.get(answer.headers["location"])).text
    assert (
        "The label was added" not in (await browser.http.get(answer.headers["location"])).text
    )  # a link alone says so
    assert f">{LABEL}<" in (await browser.http.get(f"{MOUNT}/studies/{study}")).text
    assert study in await search(site, label=LABEL)
    escaped = re.sub(r"([\\,$|])", r"\\\1", LABEL)
    system = "https://foramen.example/fhir/CodeSystem/image-label"
    (resource,) = await site.record.search("ImagingStudy", [("_tag", f"{system}|{escaped}")])
    assert resource["identifier"][0]["value"] == f"urn:oid:{study}"
    # A study that arrives again keeps its labels.
    await site.stored(*lumbar())
    assert study in await search(site, label=LABEL)
    await browser.http.post(f"{MOUNT}/studies/{study}/labels/remove", data={"csrf": csrf, "label": LABEL})
    assert study not in await search(site, label=LABEL)


@pytest.mark.parametrize("label", ["", "   ", "x" * 41, "a\u200bb\u0007"])
async def test_a_label_that_is_none_changes_nothing(site: Site, study: str, label: str):
    browser = await site.signed_in(DOCTOR)
    before = (await site.record.search("ImagingStudy", [("identifier", f"urn:dicom:uid|urn:oid:{study}")]))[0]
    data = {"csrf": await browser.csrf(), "label": label}
    assert (await browser.http.post(f"{MOUNT}/studies/{study}/labels", data=data)).status_code == 400
    after = (await site.record.search("ImagingStudy", [("identifier", f"urn:dicom:uid|urn:oid:{study}")]))[0]
    assert before == after


async def test_who_may_only_read_sees_no_forms_and_changes_nothing(site: Site, study: str):
    browser = await site.signed_in(READER)
    page = (await browser.http.get(f"{MOUNT}/studies/{study}")).text
    assert "/labels" not in page
    assert "upload" not in page.lower()
    data = {"csrf": await browser.csrf(), "label": "x"}
    assert (await browser.http.post(f"{MOUNT}/studies/{study}/labels", data=data)).status_code == 403


async def test_thumbnails_are_pictures_and_what_has_none_is_an_empty_404(site: Site, study: str):
    browser = await site.signed_in(DOCTOR)
    one = lumbar()[0].SeriesInstanceUID
    for path in (f"/studies/{study}/thumbnail", f"/studies/{study}/series/{one}/thumbnail"):
        picture = await browser.http.get(f"{MOUNT}{path}")
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/jpeg")
        assert picture.content.startswith(b"\xff\xd8\xff")
        assert picture.headers["cache-control"] == "no-store"
    absent = await browser.http.get(f"{MOUNT}/studies/1.2.3/thumbnail")
    assert (absent.status_code, absent.content) == (404, b"")


async def test_the_study_page_shows_series_and_header_and_opens_the_review_app(site: Site, study: str):
    browser = await site.signed_in(DOCTOR)
    page = (await browser.http.get(f"{MOUNT}/studies/{study}")).text
    assert "王小东" in page
    assert "T2 sag SYNTHETIC" in page
    header = (await browser.http.get(f"{MOUNT}/studies/{study}/series/{lumbar()[0].SeriesInstanceUID}")).text
    assert "ImagePositionPatient" in header
    assert "(7FE0,0010)" not in header
    answer = await browser.http.post(f"{MOUNT}/studies/{study}/review", data={"csrf": await browser.csrf()})
    assert answer.status_code == 303
    assert "/apps/result-review/" in answer.headers["location"]
    assert "launch=" in answer.headers["location"]


async def test_a_study_without_a_patient_is_shown_and_cannot_be_labelled(site: Site):
    study = await site.stored(*series(1, seed=43, patient_id="SYN-43-unknown"))
    browser = await site.signed_in(DOCTOR)
    page = (await browser.http.get(f"{MOUNT}/studies/{study}")).text
    assert "belongs to no patient of the record yet" in page
    data = {"csrf": await browser.csrf(), "label": "x"}
    assert (await browser.http.post(f"{MOUNT}/studies/{study}/labels", data=data)).status_code == 404


async def test_every_read_is_audited_with_the_persons_name(site: Site, study: str):
    browser = await site.signed_in(READER)
    await browser.http.get(f"{MOUNT}/studies/{study}")

    async def audited() -> bool:
        events = await site.record.search("AuditEvent", [("altid", READER), ("_count", "1000"), ("_sort", "-date")])
        return any(event.get("agent", [{}])[0].get("altId") == READER for event in events)

    assert await site.until(audited)


async def test_pages_of_a_long_list(site: Site, study: str):
    from foramen.image_database.studies import PAGE_SIZE

    await site.add_patient("p2", "SYN-44")
    datasets = [
        series(1, seed=100 + number, patient_id="SYN-44", study_key=f"k{number}", study_description="Paging SYNTHETIC")[
            0
        ]
        for number in range(PAGE_SIZE + 2)
    ]
    await site.stored(*datasets)
    first = await search(site, description="Paging")
    second = await search(site, description="Paging", page="2")
    of = lambda page: set(re.findall(rf"{MOUNT}/studies/([\d.]+)\"", page))  # noqa: E731
    assert (len(of(first)), len(of(second))) == (PAGE_SIZE, 2)
    assert of(first) | of(second) == {str(item.StudyInstanceUID) for item in datasets}
    narrowed = await search(site, description="Paging", body_part="LSPINE")
    assert len(of(narrowed)) == PAGE_SIZE
    assert f"{PAGE_SIZE + 2} studies" in narrowed


async def test_a_study_is_rejected_with_a_reason_and_restored(site: Site, study: str):
    mine = await site.stored(*series(2, seed=48, patient_id="SYN-41", patient_name="SYNTHETIC^REJECTED", study_key="r"))
    browser = await site.signed_in(DOCTOR)
    path, csrf = f"{MOUNT}/studies/{mine}", await browser.csrf()
    page = (await browser.http.get(path)).text
    assert "Reject this study" in page
    assert (await browser.http.post(f"{path}/reject", data={"csrf": csrf, "code": "113002"})).status_code == 400
    held = "INSERT INTO dicomweb.legal_hold (study_instance_uid, reason, placed_by) VALUES (:study, 'x', 'y')"
    site.execute(held, study=mine)
    form = {"csrf": csrf, "code": "113038", "note": "SYNTHETIC mix-up"}
    refused = await browser.http.post(f"{path}/reject", data=form, headers={"accept-language": "zh"})
    assert refused.status_code == 409
    assert "此检查处于法律保全中，不能移除" in refused.text
    site.execute("UPDATE dicomweb.legal_hold SET released_at = now(), released_by = 'y'")

    answer = await browser.http.post(f"{path}/reject", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{MOUNT}/rejected?done=rejected")
    assert (await browser.http.get(path)).status_code == 404
    assert mine not in await search(site)
    page = (await browser.http.get(f"{MOUNT}/rejected?done=rejected")).text
    assert "Wrong patient or wrong order chosen" in page
    assert "SYNTHETIC mix-up" in page
    assert f"Rejected by {DOCTOR}" in page
    assert (await (await site.signed_in(READER)).http.get(f"{MOUNT}/rejected")).status_code == 403
    answer = await browser.http.post(f"{path}/restore", data={"csrf": csrf})
    assert (answer.status_code, answer.headers["location"]) == (303, f"{path}?done=restored")
    assert (await browser.http.get(path)).status_code == 200
    assert "Nothing is rejected" in (await browser.http.get(f"{MOUNT}/rejected")).text


async def test_a_system_administrator_with_two_factors_sees_what_is_out_of_line(site: Site):
    found = "INSERT INTO dicomweb.drift (study_instance_uid, kind, state, instances, detail, trace_id) VALUES "
    site.execute(found + "('2.25.4711', 'missing-in-archive', 'open', 7, '{}', repeat('0', 32))")
    browser = await site.keeper()
    start = await browser.http.get(f"{MOUNT}/")  # To the one page of it that they may see.
    assert (start.status_code, start.headers["location"]) == (303, f"{MOUNT}/drift")
    closed = await browser.http.get(f"{MOUNT}/studies/2.25.4711")  # Of the images themselves they see nothing.
    assert closed.status_code == 403
    assert f'href="{MOUNT}/"' not in closed.text
    assert closed.text.count(f'href="{MOUNT}/drift"') == 2  # the navigation, and the way back
    page = await browser.http.get(f"{MOUNT}/drift")
    assert page.status_code == 200
    assert 'href="/apps/admin/"' in page.text
    assert "2.25.4711" in page.text
    assert "Instances went from the archive behind our back" in page.text
    assert "索引中有、归档中已没有的影像" in (await browser.http.get(f"{MOUNT}/drift", params={"lang": "zh"})).text
    site.execute("UPDATE identity.session SET factors = '[\"password\"]' WHERE account = :name", name=KEEPER)
    assert (await browser.http.get(f"{MOUNT}/drift")).status_code == 303  # One factor opens no administrator's page.
    doctor = await site.signed_in(DOCTOR)
    assert (await doctor.http.get(f"{MOUNT}/drift")).status_code == 403
    assert "/drift" not in (await doctor.http.get(f"{MOUNT}/")).text

    async def audited() -> list[str]:
        events = await site.record.search("AuditEvent", [("altid", KEEPER), ("_count", "1000")])
        return [event["outcome"] for event in events if event["subtype"][0]["code"] == "read-drift"]

    assert set(await site.until(audited)) == {"0"}
