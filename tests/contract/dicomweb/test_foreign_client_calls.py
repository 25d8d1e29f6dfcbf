"""Every call of PyPI's dicomweb-client, unmodified, against the gateway; a call without an entry here fails.

DICOM PS3.18 §10.4 to §10.6
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom import Dataset

from tests.builders.dicom import series
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dicomweb.test_foreign_client import client_of

pytestmark = pytest.mark.requirement("PS3.18 10: a client that others wrote does each of its calls")
PNG, JPEG = ("image/png",), ("image/jpeg",)


@dataclass(frozen=True)
class Sent:
    """What the client sent before: a series of three instances."""

    datasets: list[Dataset]

    @property
    def study(self) -> str:
        return str(self.datasets[0].StudyInstanceUID)

    @property
    def series(self) -> str:
        return str(self.datasets[0].SeriesInstanceUID)

    @property
    def one(self) -> tuple[str, str, str]:
        return self.study, self.series, str(self.datasets[0].SOPInstanceUID)


def same(found: list[Dataset] | Any, sent: Sent) -> bool:
    return {item.SOPInstanceUID for item in found} == {item.SOPInstanceUID for item in sent.datasets}


def metadata(found: list[dict[str, Any]], sent: Sent) -> bool:
    return {item["00080018"]["Value"][0] for item in found} == {item.SOPInstanceUID for item in sent.datasets}


def bulk_url(client: DICOMwebClient, sent: Sent) -> str:
    return "{}/studies/{}/series/{}/instances/{}/bulkdata/7FE00010".format(client.base_url, *sent.one)


def pixels(sent: Sent) -> bytes:
    return bytes(sent.datasets[0].PixelData)


def rendered_series(client: DICOMwebClient, sent: Sent) -> bool:
    """The client reads one body: a series comes as an animation; one picture cannot be all of it, and it is told so."""
    gif = Image.open(BytesIO(client.retrieve_series_rendered(sent.study, sent.series, ("image/gif",))))
    with pytest.raises(requests.HTTPError) as fault:
        client.retrieve_series_rendered(sent.study, sent.series, JPEG)
    assert "image/gif" in fault.value.response.text
    return gif.n_frames == len(sent.datasets) and fault.value.response.status_code == 406


Call = Callable[[DICOMwebClient, Sent], object]
CALLS: dict[str, Call] = {
    "store_instances": lambda c, s: len(c.store_instances(s.datasets, s.study).ReferencedSOPSequence) == 3,
    "search_for_studies": lambda c, s: len(c.search_for_studies(search_filters={"StudyInstanceUID": s.study})) == 1,
    "search_for_series": lambda c, s: len(c.search_for_series(s.study, fields=["SeriesDescription"])) == 1,
    "search_for_instances": lambda c, s: len(c.search_for_instances(s.study, get_remaining=True, limit=2)) == 3,
    "retrieve_study": lambda c, s: same(c.retrieve_study(s.study), s),
    "retrieve_series": lambda c, s: same(c.retrieve_series(s.study, s.series), s),
    "retrieve_instance": lambda c, s: np.array_equal(
        c.retrieve_instance(*s.one).pixel_array, s.datasets[0].pixel_array
    ),
    "iter_study": lambda c, s: same(list(c.iter_study(s.study)), s),
    "iter_series": lambda c, s: same(list(c.iter_series(s.study, s.series)), s),
    "retrieve_study_metadata": lambda c, s: metadata(c.retrieve_study_metadata(s.study), s),
    "retrieve_series_metadata": lambda c, s: metadata(c.retrieve_series_metadata(s.study, s.series), s),
    "retrieve_instance_metadata": lambda c, s: c.retrieve_instance_metadata(*s.one)["00080018"]["Value"] == [s.one[2]],
    "retrieve_instance_frames": lambda c, s: c.retrieve_instance_frames(*s.one, [1]) == [pixels(s)],
    "iter_instance_frames": lambda c, s: list(c.iter_instance_frames(*s.one, [1])) == [pixels(s)],
    "retrieve_series_rendered": rendered_series,
    "retrieve_instance_rendered": lambda c, s: c.retrieve_instance_rendered(*s.one, PNG)[:4] == b"\x89PNG",
    "retrieve_instance_frames_rendered": lambda c, s: (
        c.retrieve_instance_frames_rendered(*s.one, [1], PNG, {"viewport": "8,8"})[:4] == b"\x89PNG"
    ),
    "retrieve_bulkdata": lambda c, s: c.retrieve_bulkdata(bulk_url(c, s)) == [pixels(s)],
    "iter_bulkdata": lambda c, s: list(c.iter_bulkdata(bulk_url(c, s))) == [pixels(s)],
}
DELETES: dict[str, tuple[str, Call]] = {
    "delete_study": ("/studies/{study}", lambda c, s: c.delete_study(s.study)),
    "delete_series": ("/studies/{study}/series/{series}", lambda c, s: c.delete_series(s.study, s.series)),
    "delete_instance": (
        "/studies/{study}/series/{series}/instances/{instance}",
        lambda c, s: c.delete_instance(*s.one),
    ),
}
_LOCAL = {"lookup_keyword", "lookup_tag", "set_chunk_size", "set_http_retry_params"}


def test_no_call_of_the_client_is_left_out() -> None:
    public = {name for name, _ in inspect.getmembers(DICOMwebClient, inspect.isfunction) if name[0] != "_"}
    assert public == set(CALLS) | set(DELETES) | _LOCAL


@pytest.fixture(scope="module")
async def sent(gateway: Gateway) -> Sent:
    found = Sent(series(3, seed=83, patient_id="SYN-83"))
    assert (await gateway.store(*found.datasets)).status_code == 200
    return found


@pytest.mark.parametrize("name", CALLS)
async def test_a_call(gateway: Gateway, sent: Sent, name: str) -> None:
    client = client_of(gateway)
    assert await asyncio.to_thread(CALLS[name], client, sent)


@pytest.mark.parametrize("name", DELETES)
async def test_a_deletion(gateway: Gateway, name: str) -> None:
    """What was rejected is deleted; without a rejection the client is told so, and nothing is gone (ADR 0042)."""
    path, call = DELETES[name]
    mine = Sent(series(2, seed=84 + list(DELETES).index(name), patient_id="SYN-84"))
    for dataset in mine.datasets:
        dataset.StudyDate = "19900102"  # Younger images may not be deleted yet.
    assert (await gateway.store(*mine.datasets)).status_code == 200
    client = client_of(gateway, "user/ImagingStudy.cruds")
    with pytest.raises(requests.HTTPError, match="409"):
        await asyncio.to_thread(call, client, mine)
    assert (await gateway.get("/studies/{}/series/{}/instances/{}".format(*mine.one))).status_code == 200
    uids = dict(zip(("study", "series", "instance"), mine.one, strict=True))
    rejection = f"{path.format(**uids)}/reject/113037^DCM"
    assert (await gateway.http.post(rejection, headers=bearer("user/ImagingStudy.u"))).status_code == 200
    await asyncio.to_thread(call, client, mine)
    assert (await gateway.get("/studies/{}/series/{}/instances/{}".format(*mine.one))).status_code == 404
