"""The run of an `analyse-study` Task: select, retrieve, infer, store DICOM results, publish (stages 4 to 6).

Each step is durable; only ids and short texts go into the database, arrays and images into the spool.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dbos import DBOS

from ai_services.workflow import claim, spool
from ai_services.workflow import services as worker_services
from ai_services.workflow.claim import identifier_value
from ai_services.workflow.model_choice import (
    choose_model,
    is_looked_at,
    package_of,
    pipeline_of,
    shadows_of,
    speaks,
)
from ai_services.workflow.pipelines import kind_of, pipeline_of_study
from ai_services.workflow.priorities import LAST, Rank, rank_of
from ai_services.workflow.steps import answer, step
from foramen.kernel.errors import UpstreamError
from foramen.kernel.identifiers import new_trace_id
from foramen.kernel.log import get_log
from terminology import systems

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from ai_services.prediction import PipelineError, Prediction
    from ai_services.results.context import RunContext
    from ai_services.results.run_record import Computation

Study = dict[str, Any]


@DBOS.workflow(name="analyse-study")  # type: ignore[untyped-decorator]
def analyse_study(task_id: str, run_id: str, trace_id: str) -> None:
    """Work on one Task; a second start with the same run id continues instead of starting again."""

    def work() -> tuple[str, str]:
        study = step("begin", begin, task_id, run_id)
        series_uid = step("select", select, task_id, run_id, study)
        study["model"] = step("choose-model", choose_model, task_id, run_id, study, series_uid)
        step("retrieve", retrieve, task_id, run_id, study, series_uid)
        if not speaks(study["model"]):
            step("shadow", run_shadows, task_id, run_id, study, series_uid)
            raise not_released()
        step("infer", infer, task_id, run_id, study, series_uid)
        step("store-objects", store_objects, task_id, run_id, study, series_uid)
        report = step("publish", publish, task_id, run_id, study, series_uid)
        step("shadow", run_shadows, task_id, run_id, study, series_uid)
        return "DiagnosticReport", report

    answer(task_id, run_id, trace_id, work)


def begin(task_id: str, run_id: str) -> Study:
    """What the Task says about the study. The time is taken here, once, so that a replay writes the same time."""
    from ai_services.prediction import PipelineError

    services = worker_services.current()

    async def read() -> Study:
        task = await claim.read_own(services.fhir, task_id, run_id)
        identifier = identifier_value(task, systems.IDENTIFIER_TASK) or ""
        study_instance_uid, _, input_hash = identifier.partition("|")
        focus, patient = task.get("focus", {}).get("reference"), task.get("for", {}).get("reference")
        if not study_instance_uid or not input_hash or focus is None or patient is None:
            raise PipelineError("incomplete-task", "the Task names no study or no patient", "任务未指明检查或患者")
        imaging_study = await services.fhir.read(focus)
        if imaging_study["subject"].get("reference") != patient:
            raise PipelineError(
                "patient-mismatch", "the Task and the ImagingStudy name different patients", "任务与检查的患者不一致"
            )
        tags = {tag.get("code") for tag in imaging_study.get("meta", {}).get("tag", [])}
        return {
            "study_instance_uid": study_instance_uid,
            "input_hash": input_hash,
            "imaging_study": focus,
            "patient": patient,
            "trace_id": identifier_value(task, systems.IDENTIFIER_TRACE) or new_trace_id(),
            "recorded_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "synthetic": "SYNTHETIC" in tags,
            "study_started": imaging_study.get("started"),
            "rank": int(rank_of(task)),
        }

    return services.wait(read())


def select(task_id: str, run_id: str, study: Study) -> str:
    """Choose the series; declines with the reason that explains most. CT is read where there is no MR and it may be."""
    services = _progress(task_id, run_id, "selecting-series")
    study_uid = study["study_instance_uid"]
    series = services.dicom.series_of_study(study_uid)
    pipeline = pipeline_of_study({modality for _, modality in series})
    if not is_looked_at(pipeline):
        raise not_released()
    kind = kind_of(pipeline)
    headers = [
        services.dicom.series_metadata(study_uid, series_uid)
        for series_uid, modality in series
        if modality == kind.modality
    ]
    return kind.select(headers).require()


def not_released() -> PipelineError:
    """The answer to a CT study where nobody has released a model for CT (ADR 0057)."""
    from ai_services.imaging.refusal import refusal

    return refusal("ct-not-released")


def retrieve(task_id: str, run_id: str, study: Study, series_uid: str) -> int:
    """Fetch the series into the spool; returns the number of instances."""
    services = _progress(task_id, run_id, "retrieving")
    datasets = services.dicom.retrieve_series(study["study_instance_uid"], series_uid)
    if not datasets:
        raise UpstreamError("The archive delivered no instance of the series")
    spool.save_series(run_id, datasets)
    return len(datasets)


def infer(task_id: str, run_id: str, study: Study, series_uid: str) -> int:
    """Run the pipeline; returns the number of findings."""
    _progress(task_id, run_id, "analysing")
    return len(compute(run_id, study, series_uid)[0].findings)


def store_objects(task_id: str, run_id: str, study: Study, series_uid: str) -> int:
    """Encode and store SEG, key images, SR and their selection; returns how many were new in the archive."""
    from ai_services.results.dicom_objects import build_objects
    from ai_services.results.publish import publish_objects

    services = _progress(task_id, run_id, "storing")
    prediction, _ = _prediction(run_id, study, series_uid)
    series = _series(run_id, study, series_uid)
    objects = build_objects(prediction, series, run_context(study, prediction))
    return publish_objects(services.dicom, study["study_instance_uid"], objects)


def publish(task_id: str, run_id: str, study: Study, series_uid: str) -> str:
    """Write everything to the record in one transaction; returns the reference of the DiagnosticReport."""
    from ai_services.recommendation.rule_base import load_rule_base
    from ai_services.results.bundle import ClinicalInputs, build_results
    from ai_services.results.publish import publish_transaction
    from ai_services.results.run_record import record_run
    from ai_services.results.supersede import close_unverified
    from ai_services.workflow.record import earlier_results, questionnaire_responses

    services = _progress(task_id, run_id, "publishing")
    prediction, computation = _prediction(run_id, study, series_uid)
    context = run_context(study, prediction)
    run = record_run(prediction, context, computation)

    async def write() -> str:
        fhir = services.fhir
        inputs = ClinicalInputs(
            patient=await fhir.read(context.patient),
            questionnaire_responses=await questionnaire_responses(fhir, context.patient),
            today=context.recorded_at.date(),
        )
        earlier = await earlier_results(fhir, context.patient, context.imaging_study)
        kept = context.urn("report")
        superseded = close_unverified(earlier, keep=[kept])
        bundle = build_results(prediction, context, inputs, load_rule_base(), superseded, run)
        return await publish_transaction(fhir, bundle, "DiagnosticReport", kept)

    return services.wait(write())


def run_shadows(task_id: str, run_id: str, study: Study, series_uid: str) -> int:
    """Ask the shadow versions too and keep how they differ; nothing of it reaches the record, and no fault the Task."""
    from ai_services.models.comparison import alone, compare
    from ai_services.prediction import PipelineError

    services, asked = worker_services.current(), 0
    for shadow in shadows_of(study["model"]):
        live = _prediction(run_id, study, series_uid)[0] if speaks(study["model"]) else None
        try:
            with services.gate.turn(LAST):
                other = services.run_pipeline(
                    _series(run_id, study, series_uid), package_of({"version": shadow.version, "pipeline": shadow.name})
                )
            told = alone(other) if live is None else compare(live, other)
        except PipelineError as declined:
            told = {"declined": declined.reason_code}
        except Exception:  # noqa: BLE001  whatever a shadow does, the study has its answer
            get_log().exception("shadow failed", model_version=shadow.version)
            told = {"declined": "unexpected"}
        if services.models is not None:
            live_version = str((study["model"] or {}).get("version", ""))
            services.models.record_shadow(run_id, shadow, live_version, study["study_instance_uid"], told)
            asked += 1
    return asked


def run_context(study: Study, prediction: Prediction) -> RunContext:
    """The context that all builders of this run share."""
    from ai_services.results.context import RunContext, models_version

    return RunContext(
        study_instance_uid=study["study_instance_uid"],
        input_hash=study["input_hash"],
        pipeline=pipeline_of(study.get("model")),
        pipeline_version=models_version(prediction.models),
        imaging_study=study["imaging_study"],
        patient=study["patient"],
        trace_id=study["trace_id"],
        recorded_at=datetime.fromisoformat(study["recorded_at"]),
        synthetic=study["synthetic"],
        study_started=study.get("study_started"),
    )


def _progress(task_id: str, run_id: str, word: str) -> worker_services.Services:
    """Say where the run is, and stop when the Task is no longer ours."""
    services = worker_services.current()
    services.wait(claim.report_progress(services.fhir, task_id, run_id, word))
    return services


def _series(run_id: str, study: Study, series_uid: str) -> list[Dataset]:
    """The series from the spool, fetched again only when the spool was lost."""
    datasets = spool.load_series(run_id)
    if datasets is None:
        datasets = worker_services.current().dicom.retrieve_series(study["study_instance_uid"], series_uid)
        spool.save_series(run_id, datasets)
    return datasets


def _prediction(run_id: str, study: Study, series_uid: str) -> tuple[Prediction, Computation]:
    """The prediction from the spool, computed again when the spool was lost; always with what it was computed with."""
    return spool.load_prediction(run_id) or compute(run_id, study, series_uid)


def compute(run_id: str, study: Study, series_uid: str) -> tuple[Prediction, Computation]:
    """Ask the models and say with what they were asked, both kept in the spool.

    Raises
    ------
    PipelineError
        The pipeline declines, or the device that the models must run on cannot be used.
    """
    from ai_services.imaging.refusal import refusal
    from ai_services.models.registry import load_manifest
    from ai_services.models.runtime import DeviceError
    from ai_services.results.run_record import observe_computation

    services = worker_services.current()
    series = _series(run_id, study, series_uid)
    package = package_of(study["model"])
    try:
        services.configure_models()
        with services.gate.turn(study.get("rank", Rank.ROUTINE)):
            prediction = services.run_pipeline(series, package)
    except DeviceError as missing:
        raise refusal("device-unavailable", retryable=True) from missing
    computation = observe_computation(prediction, series, package or load_manifest(pipeline_of(study["model"])))
    spool.save_prediction(run_id, prediction, computation)
    return prediction, computation
