"""Where institutions are separate: another institution's study is answered like none, on every page (SYNTHETIC)."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from foramen.identity.oauth.operator_token import operator_token
from foramen.image_database.routes import PAGES
from tests.builders.dicom import MULTIPART, encoded, multipart, series
from tests.contract.ingest.conftest import DOCTOR, MOUNT, READER, Site, grant

OF_STUDY = [(page, method) for page in PAGES for method in page.methods if "{study}" in page.path]


@pytest.fixture(scope="module")
def changed_settings() -> dict[str, Any]:
    return {"institutions": "separate"}


@pytest.fixture(scope="module")
async def study(site: Site) -> tuple[str, str]:
    """A study of a northern patient, stored by a service; returns its UID and its series'."""
    grant(site.database_url, READER, "manage-images")
    await site.add_patient("p1", "SYN-71", "north")
    (one,) = series(1, seed=71, patient_id="SYN-71")
    token = operator_token(site.settings, None, "system/ImagingStudy.crs system/Task.u", expires_in_s=600)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": MULTIPART}
    async with httpx.AsyncClient(base_url=site.settings.internal_origin, headers=headers, trust_env=False) as http:
        answer = await http.post("/dicom-web/studies", content=multipart(encoded(one)))
        assert answer.status_code == 200, answer.text
    await site.dicomweb.intake.register_study(str(one.StudyInstanceUID), "0" * 32)
    return str(one.StudyInstanceUID), str(one.SeriesInstanceUID)


@pytest.mark.parametrize(("page", "method"), OF_STUDY, ids=lambda item: getattr(item, "path", item))
async def test_it_is_answered_like_none(site: Site, study: tuple[str, str], page, method: str):
    browser = await site.signed_in(READER)
    data = {"csrf": await browser.csrf(), "label": "x"}
    answers = []
    for uids in (study, ("1.2.3.4", "1.2.3.5")):
        path = MOUNT + page.path.replace("{study}", uids[0]).replace("{series}", uids[1])
        answer = await browser.http.request(method, path, data=data if method == "POST" else None)
        body = re.sub(r'nonce(-|=")[\w-]+', "", answer.text).replace(uids[0], "S").replace(uids[1], "E")
        answers.append((answer.status_code, body))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


async def test_the_own_institution_sees_it_and_the_other_does_not_find_it(site: Site, study: tuple[str, str]):
    for name, sees in ((DOCTOR, True), (READER, False)):
        browser = await site.signed_in(name)
        for query in ({}, {"patient_id": "SYN-71"}, {"body_part": "LSPINE"}, {"institution": "north"}):
            page = (await browser.http.get(f"{MOUNT}/", params=query)).text
            assert (study[0] in page) is sees, (name, query)
        assert ("north hospital" in (await browser.http.get(f"{MOUNT}/")).text) is False


async def test_people_cannot_upload_there_and_are_told(site: Site, study: tuple[str, str]):
    browser = await site.signed_in(DOCTOR)
    assert "images are stored by devices and services" in (await browser.http.get(f"{MOUNT}/upload")).text
    before = site.orthanc.count()
    answer = await browser.send({"1.dcm": encoded(series(1, seed=72)[0])})
    assert answer.status_code == 403
    assert site.orthanc.count() == before
