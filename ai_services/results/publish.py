"""The only writer of results: DICOM objects by STOW-RS first, then one FHIR transaction (stage 6).

DICOM PS3.18 §10.5; https://hl7.org/fhir/R4/http.html#transaction. A replay of either writes nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pydicom.dataset import Dataset

from ai_services.results.context import Resource
from foramen.kernel.errors import UpstreamError
from foramen.kernel.fhir_client import FhirClient
from terminology import systems


class ObjectStore(Protocol):
    """Where DICOM objects go: the DICOMweb door."""

    def stored_instances(self, study_instance_uid: str, series_instance_uid: str) -> set[str]:
        """SOP Instance UIDs of a series; empty when the series does not exist."""

    def store(self, study_instance_uid: str, datasets: Sequence[Dataset]) -> None:
        """Store instances; raises when any of them was not stored."""


def publish_objects(store: ObjectStore, study_instance_uid: str, datasets: Sequence[Dataset]) -> int:
    """Store the objects that are not there yet; returns how many were stored."""
    missing = [
        dataset
        for dataset in datasets
        if str(dataset.SOPInstanceUID) not in store.stored_instances(study_instance_uid, str(dataset.SeriesInstanceUID))
    ]
    if missing:
        store.store(study_instance_uid, missing)
    return len(missing)


async def published(fhir: FhirClient, resource_type: str, identifier: str) -> str | None:
    """Reference of a result that an earlier attempt has already written, None when there is none."""
    found = await fhir.search(resource_type, [("identifier", f"{systems.IDENTIFIER_RESULT}|{identifier}")])
    return f"{resource_type}/{found[0]['id']}" if found else None


async def publish_transaction(fhir: FhirClient, bundle: Resource, resource_type: str, identifier: str) -> str:
    """Post the transaction unless an earlier attempt did; returns the reference of its leading resource.

    Parameters
    ----------
    fhir : the record
    bundle : of `build_results` or `build_options`
    resource_type, identifier : the resource of the bundle that stands for all of it
    """
    reference = await published(fhir, resource_type, identifier)
    if reference is None:
        await fhir.transaction(bundle)
        reference = await published(fhir, resource_type, identifier)
    if reference is None:
        raise UpstreamError("The record accepted the results but does not show them")
    return reference
