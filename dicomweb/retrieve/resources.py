"""What the handlers of the Retrieve transaction share: parts of the gateway, and the names in a URL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import Request

from dicomweb.archive import Archive
from dicomweb.media_types import Offer
from dicomweb.retrieve.codec_pool import CodecPool
from dicomweb.retrieve.fetched_files import FetchedFiles
from dicomweb.retrieve.nginx_handoff import NginxHandoff
from dicomweb.retrieve.series_plans import SeriesPlans
from dicomweb.retrieve.stored_files import StoredFiles
from dicomweb.study_index import IndexedInstance, StudyIndex
from foramen.kernel.settings import Settings

DICOM = "application/dicom"
OCTETS = "application/octet-stream"
ZIP = "application/zip"


@dataclass(frozen=True, slots=True)
class Resources:
    """Parts that handlers are built from."""

    settings: Settings
    index: StudyIndex
    archive: Archive
    files: StoredFiles
    fetched: FetchedFiles
    codec: CodecPool
    nginx: NginxHandoff
    plans: SeriesPlans


def uids_of(request: Request) -> tuple[str, str | None, str | None]:
    """Study, series and instance that a URL names."""
    parameters = request.path_params
    return parameters["study"], parameters.get("series"), parameters.get("instance")


def path_of(instance: IndexedInstance) -> str:
    """Path of an instance below the base of the API."""
    uids = (instance.study_instance_uid, instance.series_instance_uid, instance.sop_instance_uid)
    return "studies/{}/series/{}/instances/{}".format(*uids)


def both(offers: Iterable[Offer], *, single: bool) -> list[Offer]:
    """Offers as multipart and, where there is one item only, as a single part (PS3.18 §10.4.4)."""
    found = list(offers)
    parts = [Offer(item.media_type, item.transfer_syntax, True, item.default) for item in found]
    return [*parts, *found] if single else parts
