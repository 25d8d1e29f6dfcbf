"""Behind a real nginx with deploy/nginx.conf, whole files go out by sendfile; access stays with the gateway.

DICOM PS3.18 §10.4; deploy/nginx.conf
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from pydicom import Dataset, dcmread

from foramen.commands.bench_dicomweb_retrieve import nginx
from foramen.supervisor.ports import free_port
from tests.builders.dicom import Orthanc, private_orthanc, series
from tests.builders.tokens import ORIGIN, bearer
from tests.contract.dicomweb.conftest import READ, Gateway
from tests.contract.dicomweb.test_wado import parts_of, url

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
pytestmark = [
    pytest.mark.skipif(not Path(NGINX).exists(), reason="nginx is not installed"),
    pytest.mark.requirement("PS3.18 10.4.1.1.1: study resources, sent by a reverse proxy"),
]
STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """As in conftest, with nginx announced in the settings."""
    home = tmp_path_factory.mktemp("home")
    with private_orthanc(home, port=free_port(), public_url=ORIGIN, nginx_sendfile=True) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(gateway: Gateway) -> Iterator[str]:
    """Base URL of the gateway through nginx."""
    with nginx(gateway.orthanc.settings.home, gateway.orthanc.settings.port) as origin:
        yield f"{origin}/dicom-web"


@pytest.fixture(scope="module")
async def stored(gateway: Gateway) -> list[Dataset]:
    datasets = series(12, seed=331, size=(200, 180), patient_id="SYN-331")
    # What is stored is never parsed for includes.
    datasets[0].StudyComments = '<!--#include virtual="/-/archive/" -->'
    assert (await gateway.store(*datasets)).status_code == 200
    return datasets


async def get(base: str, path: str, accept: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(base + path, headers=bearer(READ) | {"Accept": accept} | headers)


async def test_a_study_is_sent_by_nginx(proxy: str, gateway: Gateway, stored: list[Dataset]):
    plans = gateway.orthanc.settings.home / "retrieve" / "plans"
    before = len(list(plans.iterdir())) if plans.is_dir() else 0
    answer = await get(proxy, url(stored[0], "study"), STORED)
    assert answer.status_code == 200
    assert len(list(plans.iterdir())) == before + 1, "nginx was not asked to send it"
    direct = await gateway.get(url(stored[0], "study"), accept=STORED)
    assert [body for _, body in parts_of(answer)] == [body for _, body in parts_of(direct)]
    found = {dcmread(BytesIO(body)).SOPInstanceUID for _, body in parts_of(answer)}
    assert found == {item.SOPInstanceUID for item in stored}
    assert re.search(r'type="application/dicom"', answer.headers["content-type"])
    assert "x-accel-redirect" not in answer.headers


async def test_one_instance_with_a_range(proxy: str, gateway: Gateway, stored: list[Dataset]):
    accept = "application/dicom; transfer-syntax=*"
    whole = await get(proxy, url(stored[1]), accept)
    assert dcmread(BytesIO(whole.content)).SOPInstanceUID == stored[1].SOPInstanceUID
    part = await get(proxy, url(stored[1]), accept, Range="bytes=128-131")
    assert (part.status_code, part.content) == (206, b"DICM")


async def test_access_comes_first(proxy: str, stored: list[Dataset]):
    async with httpx.AsyncClient(trust_env=False) as client:
        path = proxy + url(stored[0], "study")
        assert (await client.get(path)).status_code == 401
        foreign = bearer("patient/ImagingStudy.rs", patient="somebody")
        assert (await client.get(path, headers=foreign)).status_code == 404
        origin = proxy.removesuffix("/dicom-web")
        for inside in ("/-/archive/", "/-/plans/", "/-/plans/" + "0" * 32):
            assert (await client.get(origin + inside, headers=bearer(READ))).status_code == 404


async def test_without_the_proxys_header_the_gateway_sends_the_bytes_itself(
    gateway: Gateway, proxy: str, stored: list[Dataset]
):
    answer = await gateway.get(url(stored[0], "study"), accept=STORED)
    assert len(parts_of(answer)) == len(stored)
    assert "x-accel-redirect" not in answer.headers
