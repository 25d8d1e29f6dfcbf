"""The pixels through the DICOMweb door: QIDO-RS, WADO-RS and STOW-RS with dicomweb-client (stages 4 and 6).

DICOM PS3.18 §10. Faults become `InteropError`s; imported on the first study only, to keep the idle worker small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset
from requests.auth import AuthBase

from foramen.kernel.errors import ForbiddenError, InteropError, NotAuthenticatedError, NotFoundError, UpstreamError

_TIMEOUT_S = 120.0
_SERIES_UID, _SOP_UID, _MODALITY = "0020000E", "00080018", "00080060"
_ERRORS: dict[int, type[InteropError]] = {401: NotAuthenticatedError, 403: ForbiddenError, 404: NotFoundError}


class _Bearer(AuthBase):
    """Adds the current backend-services token to each request."""

    def __init__(self, authorization: Callable[[], str]) -> None:
        self._authorization = authorization

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._authorization()
        return request


class _Session(requests.Session):
    """A session that never waits for ever and never asks a proxy for the way to our own server."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs.setdefault("timeout", _TIMEOUT_S)
        return super().request(*args, **kwargs)


class DicomAccess:
    """What a run needs of the DICOMweb API."""

    def __init__(self, base_url: str, authorization: Callable[[], str]) -> None:
        session = _Session()
        session.auth = _Bearer(authorization)
        self._client = DICOMwebClient(base_url, session=session)
        self._client.set_http_retry_params(retry=False)

    def series_of_study(self, study_instance_uid: str) -> list[tuple[str, str]]:
        """Series Instance UID and modality of every series.

        Raises
        ------
        NotFoundError
            The archive does not know the study.
        """
        with _faults():
            found = self._client.search_for_series(study_instance_uid)
        series = [(_value(item, _SERIES_UID), _value(item, _MODALITY)) for item in found]
        if not series:
            raise NotFoundError("The archive does not hold the study")
        return series

    def series_metadata(self, study_instance_uid: str, series_instance_uid: str) -> list[Dataset]:
        """Headers of the instances of a series."""
        with _faults():
            items = self._client.retrieve_series_metadata(study_instance_uid, series_instance_uid)
        return [Dataset.from_json(item, bulk_data_uri_handler=lambda *_: None) for item in items]

    def retrieve_series(self, study_instance_uid: str, series_instance_uid: str) -> list[Dataset]:
        """Instances of a series with pixel data, in the transfer syntax they are stored in."""
        with _faults():
            return list(
                self._client.retrieve_series(
                    study_instance_uid, series_instance_uid, media_types=(("application/dicom", "*"),)
                )
            )

    def stored_instances(self, study_instance_uid: str, series_instance_uid: str) -> set[str]:
        """SOP Instance UIDs of a series; empty when the series does not exist."""
        try:
            with _faults():
                found = self._client.search_for_instances(study_instance_uid, series_instance_uid)
        except NotFoundError:
            return set()
        return {_value(item, _SOP_UID) for item in found}

    def store(self, study_instance_uid: str, datasets: Sequence[Dataset]) -> None:
        """Store instances.

        Raises
        ------
        UpstreamError
            The archive did not take all of them.
        """
        with _faults():
            answer = self._client.store_instances(list(datasets), study_instance_uid)
        failed = len(answer.get("FailedSOPSequence") or [])
        if failed:
            raise UpstreamError(f"The archive did not store {failed} of {len(datasets)} results")


def _value(item: dict[str, Any], tag: str) -> str:
    values = item.get(tag, {}).get("Value") or [""]
    return str(values[0])


@contextmanager
def _faults() -> Iterator[None]:
    """Turn what requests raises into our errors; messages hold no address and no identifier."""
    try:
        yield
    except requests.HTTPError as exc:
        status = exc.response.status_code if exc.response is not None else 503
        if status >= 500 or status in (408, 429):
            raise UpstreamError(f"The image archive answered {status}") from exc
        raise _ERRORS.get(status, InteropError)(f"The image archive answered {status}") from exc
    except (requests.RequestException, OSError) as exc:
        raise UpstreamError("The image archive does not answer") from exc
