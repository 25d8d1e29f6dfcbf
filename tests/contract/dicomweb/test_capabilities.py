"""Retrieve Capabilities and the conformance page: written from the table of calls, so that they cannot say else.

DICOM PS3.18 §8.9, Annex H
"""

from __future__ import annotations

import re

import pytest
from lxml import etree
from pydicom import Dataset

from dicomweb.conformance.capabilities import WADL, as_wadl, described
from dicomweb.instance_check import SUPPORTED
from dicomweb.routes import ROUTES, DicomWebRoute
from tests.builders.dicom import series
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import Gateway

NS = "{http://wadl.dev.java.net/2009/02}"
_OF_OTHERS = ("video/", "text/", "application/pdf", "model/")
pytestmark = pytest.mark.requirement("PS3.18 8.9: the capabilities are retrieved as WADL and as JSON")


def calls(root: etree._Element) -> set[tuple[str, str]]:
    """Method and path of everything in a WADL document."""
    found = set()

    def visit(element: etree._Element, path: str) -> None:
        for child in element:
            if child.tag == f"{NS}resource":
                visit(child, f"{path}/{child.get('path')}")
            elif child.tag == f"{NS}method":
                found.add((child.get("name"), path))

    visit(root.find(f"{NS}resources"), "")
    return found


def plain(path: str) -> str:
    return re.sub(r"\{(\w+):\w+\}", r"{\1}", path)


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_wadl_has_every_call_and_no_other(gateway: Gateway, method: str) -> None:
    answer = await gateway.http.request(method, "/", headers={"Accept": WADL})
    assert (answer.status_code, answer.headers["content-type"]) == (200, WADL)
    root = etree.fromstring(answer.content)
    assert calls(root) == {(route.method, plain(route.path)) for route in ROUTES}
    assert len(root) == 1
    again = await gateway.http.request(method, "/", headers={"Accept": WADL, "If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_json_has_every_call_and_no_other(gateway: Gateway) -> None:
    answer = await gateway.http.get("/", headers={"Accept": "application/json"})
    said = answer.json()
    found = {(method["name"], item["path"]) for item in said["resources"] for method in item["methods"]}
    assert found == {(route.method, plain(route.path)) for route in ROUTES}
    assert (await gateway.http.get("/", headers={"Accept": "image/png"})).status_code == 406


def test_a_new_call_is_described_without_being_told() -> None:
    new = DicomWebRoute("PUT", "/new/{thing:path}", "something_new", "new")
    assert described([new])[0] == {
        "path": "/new/{thing}",
        "methods": [{"name": "PUT", "id": "new", "transaction": "Something new"}],
    }
    assert calls(etree.fromstring(as_wadl("http://test", [new]))) == {("PUT", "/new/{thing}")}


@pytest.fixture(scope="module")
async def stored(gateway: Gateway) -> list[Dataset]:
    datasets = series(1, seed=90, patient_id="SYN-90")
    assert (await gateway.store(*datasets)).status_code == 200
    return datasets


async def test_every_media_type_that_is_named_is_given(gateway: Gateway, stored: list[Dataset]) -> None:
    """Of a plain image: what stands for videos, reports, documents and JPX as stored is 406, and only that."""
    one = stored[0]
    uids = {"study": one.StudyInstanceUID, "series": one.SeriesInstanceUID, "instance": one.SOPInstanceUID}
    wado = f"/wado?requestType=WADO&studyUID={uids['study']}&seriesUID={uids['series']}&objectUID={uids['instance']}"
    given: dict[str, set[str]] = {}
    for resource in described():
        for method in resource["methods"]:
            if method["name"] != "GET" or "{workitem}" in resource["path"] or method["transaction"] == "Search":
                continue
            path = wado if resource["path"] == "/wado" else resource["path"].format(**uids, frames="1", path="7FE00010")
            for said in method.get("response", ()):
                answer = await gateway.get(path, accept=said)
                if answer.status_code == 406:
                    by_name = "rendered" not in path and "image/jpeg" in said  # Lossy: asked for by its UID only.
                    assert by_name or said.startswith(_OF_OTHERS) or "image/jpx" in said, (resource["path"], said)
                    continue
                assert answer.status_code == 200, (resource["path"], said)
                kinds = (said, "application/dicom+json") if said == "application/json" else (said,)
                assert answer.headers["content-type"].startswith(kinds), (resource["path"], said)
                given.setdefault(resource["path"], set()).add(said)
    assert given["/studies/{study}/series/{series}/rendered"] >= {"image/gif", 'multipart/related; type="image/png"'}
    assert given["/studies/{study}"] >= {"application/zip", 'multipart/related; type="application/dicom"'}
    assert len(given) > 20


async def test_what_is_said_to_be_offered_is_offered(gateway: Gateway) -> None:
    """Every call that is described is routed: it is never the 404 or 405 of a path that is not there."""
    named = {"study": "1.2.3", "series": "1.2.4", "instance": "1.2.5", "frames": "1", "workitem": "1.2.6"}
    for route in ROUTES:
        path = re.sub(r"\{(\w+)(:\w+)?\}", lambda match: named.get(match[1], "X"), route.path)
        answer = await gateway.http.request(route.method, path, headers=bearer("openid"))
        assert answer.status_code in (400, 403), f"{route.method} {route.path}: {answer.status_code}"


async def test_the_conformance_page(gateway: Gateway) -> None:
    page = await gateway.http.get("/conformance", headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for route in ROUTES:
        assert f"{route.method} {plain(route.path)}" in page.text
    said = (await gateway.http.get("/conformance", headers={"Accept": "application/json"})).json()
    assert {item["uid"] for item in said["transferSyntaxes"]} == set(SUPPORTED)
