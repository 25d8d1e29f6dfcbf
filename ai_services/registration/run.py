"""Registers a CT and an MR study of the record: read, outline, register, store (stages 4 to 6).

Everything is refused before anything is stored; DICOM object first, then one FHIR transaction. A second call with the
same series and versions stores nothing twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from pydicom.dataset import Dataset

from ai_services.imaging.refusal import refusal
from ai_services.models.registry import Manifest
from ai_services.prediction import Prediction
from ai_services.registration.method import identity
from ai_services.registration.pair import register_pair, require_pair
from ai_services.registration.register import Registration
from ai_services.registration.results import KIND, Sources, build_registration
from ai_services.registration.spatial_registration import build_spatial_registration
from ai_services.results.context import RunContext, is_synthetic, models_version
from ai_services.results.publish import publish_objects, publish_transaction
from ai_services.results.run_record import input_hashes
from ai_services.workflow.pipelines import CT, MR, kind_of
from foramen.kernel.errors import NotFoundError
from foramen.kernel.fhir_client import FhirClient
from foramen.kernel.identifiers import new_trace_id
from terminology import systems

Resource = dict[str, Any]


class Archive(Protocol):
    """The images: the DICOMweb door."""

    def series_of_study(self, study_instance_uid: str) -> list[tuple[str, str]]:
        """Series Instance UID and modality of every series."""

    def series_metadata(self, study_instance_uid: str, series_instance_uid: str) -> list[Dataset]:
        """Headers of the instances of a series."""

    def retrieve_series(self, study_instance_uid: str, series_instance_uid: str) -> list[Dataset]:
        """Instances of a series with pixel data."""

    def stored_instances(self, study_instance_uid: str, series_instance_uid: str) -> set[str]:
        """SOP Instance UIDs of a series; empty when the series does not exist."""

    def store(self, study_instance_uid: str, datasets: Sequence[Dataset]) -> None:
        """Store instances; raises when any of them was not stored."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A series to register.

    Parameters
    ----------
    study : Study Instance UID
    series : Series Instance UID; None: the one that the pipeline would read
    """

    study: str
    series: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Both series with what was outlined in them, the CT's first, and what the record says of their studies."""

    studies: tuple[Resource, Resource]
    series: tuple[list[Dataset], list[Dataset]]
    predictions: tuple[Prediction, Prediction]
    registration: Registration


async def studies_of(fhir: FhirClient, fixed: Asked, moving: Asked) -> tuple[Resource, Resource]:
    """The ImagingStudies, the CT's first.

    Raises
    ------
    NotFoundError
        The record has none, or none that this account may see.
    PipelineError
        ``different-patients``
    """
    found = []
    for asked in (fixed, moving):
        answer = await fhir.search("ImagingStudy", [("identifier", f"{systems.DICOM_UID}|urn:oid:{asked.study}")])
        if not answer:
            raise NotFoundError("The record has no such study, or none within reach of this account")
        found.append(answer[0])
    if len({str(study["subject"].get("reference")) for study in found}) != 1:
        raise refusal("different-patients")
    return found[0], found[1]


def register_studies(
    studies: tuple[Resource, Resource],
    archive: Archive,
    asked: tuple[Asked, Asked],
    versions: Mapping[str, Manifest],
) -> Pair:
    """Read both series, outline and register them; stores nothing.

    Parameters
    ----------
    studies : of `studies_of`
    archive : the images
    asked : the CT's and the MR's
    versions : of each pipeline, by its name

    Raises
    ------
    PipelineError
        A series cannot be read, or both cannot be registered; all codes: `terminology.analysis_reasons`.
    """
    uids = [_series(archive, one, pipeline) for one, pipeline in zip(asked, (CT, MR), strict=True)]
    headers = [archive.series_metadata(one.study, uid) for one, uid in zip(asked, uids, strict=True)]
    require_pair(headers[0], headers[1])  # before pixels are fetched
    fixed, moving = (archive.retrieve_series(one.study, uid) for one, uid in zip(asked, uids, strict=True))
    seen = kind_of(CT).run(fixed, versions[CT]), kind_of(MR).run(moving, versions[MR])
    return Pair(studies, (fixed, moving), seen, register_pair(fixed, seen[0], moving, seen[1]))


async def store(fhir: FhirClient, archive: Archive, pair: Pair) -> tuple[str, str]:
    """Store the DICOM object and the transaction.

    Returns
    -------
    reference of the Observation, and the SOP Instance UID of the Spatial Registration in the study of the CT
    """
    now = datetime.now(UTC)
    context = context_of(pair, now)
    made = spatial_registration(pair, context)
    publish_objects(archive, str(made.StudyInstanceUID), [made])
    fixed, moving = pair.series
    sources = Sources(
        studies=(_reference(pair.studies[0]), _reference(pair.studies[1])),
        series=(str(fixed[0].SeriesInstanceUID), str(moving[0].SeriesInstanceUID)),
        inputs=input_hashes(fixed) | input_hashes(moving),
        models=[model for prediction in pair.predictions for model in prediction.models],
    )
    bundle = build_registration(pair.registration, context, sources, str(made.SOPInstanceUID))
    reference = await publish_transaction(fhir, bundle, "Observation", context.urn(KIND))
    return reference, str(made.SOPInstanceUID)


def spatial_registration(pair: Pair, context: RunContext) -> Dataset:
    """The DICOM object of a pair; its UIDs are those of the run."""
    fixed, moving = pair.series
    return build_spatial_registration(
        pair.registration, fixed, moving, context.recorded_at, identity().version, (context.uid("reg"),)
    )


def context_of(pair: Pair, recorded_at: datetime) -> RunContext:
    """The run: the same series and versions are the same run, whenever it is done."""
    models = [model for prediction in pair.predictions for model in prediction.models]
    uids = sorted(str(dataset.SOPInstanceUID) for series in pair.series for dataset in series)
    study = pair.studies[0]
    return RunContext(
        study_instance_uid=str(pair.series[0][0].StudyInstanceUID),
        input_hash=hashlib.sha256("|".join(uids).encode()).hexdigest(),
        pipeline=identity().name,
        pipeline_version=models_version([identity(), *models]),
        imaging_study=_reference(study),
        patient=str(study["subject"]["reference"]),
        trace_id=new_trace_id(),
        recorded_at=recorded_at,
        synthetic=any(is_synthetic(item) for item in pair.studies),
        study_started=study.get("started"),
    )


def _series(archive: Archive, asked: Asked, pipeline: str) -> str:
    """The series that was asked for, or that the pipeline would read; both by the pipeline's own rules."""
    kind = kind_of(pipeline)
    found = [uid for uid, modality in archive.series_of_study(asked.study) if modality == kind.modality]
    if asked.series is not None:
        if asked.series not in found:
            raise NotFoundError(f"The study has no {kind.modality} series with this UID")
        found = [asked.series]
    return kind.select([archive.series_metadata(asked.study, uid) for uid in found]).require()


def _reference(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"
