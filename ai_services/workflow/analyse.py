"""The run of an `analyse-study` Task: select, retrieve, infer, store DICOM results, publish (stages 4 to 6).

Each step is durable; only ids and short texts go into the database, arrays and images into the spool.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dbos import DBOS

from ai_services.workflow import claim, spool
from ai_services.workflow import services as worker_services
from ai_services.workflow.claim import identifier_value
from ai_services.workflow.steps import answer, step
from foramen.kernel.errors import UpstreamError
from foramen.kernel.identifiers import new_trace_id
from terminology import systems

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from ai_services.prediction import Prediction
    from ai_services.results.context import RunContext

PIPELINE = "lumbar_mr"
Study = dict[str, Any]


@DBOS.workflow(name="analyse-study")  # type: ignore[untyped-decorator]
def analyse_study(task_id: str, run_id: str, trace_id: str) -> None:
    """Work on one Task; a second start with the same run id continues instead of starting again."""

    def work() -> tuple[str, str]:
        study = step("begin", begin, task_id, run_id)
        series_uid = step("select", select, task_id, run_id, study)
        step("retrieve", retrieve, task_id, run_id, study, series_uid)
        step("infer", infer, task_id, run_id, study, series_uid)
        step("store-objects", store_objects, task_id, run_id, study, series_uid)
        return "DiagnosticReport", step("publish", publish, task_id, run_id, study, series_uid)

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
        }

    return services.wait(read())


def select(task_id: str, run_id: str, study: Study) -> str:
    """Choose the series; declines with the reason that explains most."""
    from ai_services.imaging.series_selection import select_series

    services = _progress(task_id, run_id, "selecting-series")
    study_uid = study["study_instance_uid"]
    headers = [
        services.dicom.series_metadata(study_uid, series_uid)
        for series_uid, modality in services.dicom.series_of_study(study_uid)
        if modality == "MR"
    ]
    return select_series(headers).require()


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
    return len(_infer(run_id, study, series_uid).findings)


def store_objects(task_id: str, run_id: str, study: Study, series_uid: str) -> int:
    """Encode and store SEG and SR; returns how many were new in the archive."""
    from ai_services.results.dicom_seg import build_segmentation
    from ai_services.results.dicom_sr import build_structured_report
    from ai_services.results.publish import publish_objects

    services = _progress(task_id, run_id, "storing")
    prediction = _prediction(run_id, study, series_uid)
    headers = _series(run_id, study, series_uid, pixels=False)
    context = run_context(study, prediction)
    segmentation = build_segmentation(prediction, headers, context)
    report = build_structured_report(prediction, headers, segmentation, context)
    return publish_objects(services.dicom, study["study_instance_uid"], [segmentation, report])


def publish(task_id: str, run_id: str, study: Study, series_uid: str) -> str:
    """Write everything to the record in one transaction; returns the reference of the DiagnosticReport."""
    from ai_services.recommendation.rule_base import load_rule_base
    from ai_services.results.bundle import ClinicalInputs, build_results
    from ai_services.results.publish import publish_transaction
    from ai_services.results.supersede import close_unverified
    from ai_services.workflow.record import earlier_results, questionnaire_responses

    services = _progress(task_id, run_id, "publishing")
    prediction = _prediction(run_id, study, series_uid)
    context = run_context(study, prediction)

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
        bundle = build_results(prediction, context, inputs, load_rule_base(), superseded)
        return await publish_transaction(fhir, bundle, "DiagnosticReport", kept)

    return services.wait(write())


def run_context(study: Study, prediction: Prediction) -> RunContext:
    """The context that all builders of this run share."""
    from ai_services.results.context import RunContext, models_version

    return RunContext(
        study_instance_uid=study["study_instance_uid"],
        input_hash=study["input_hash"],
        pipeline=PIPELINE,
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


def _series(run_id: str, study: Study, series_uid: str, *, pixels: bool) -> list[Dataset]:
    """The series from the spool, fetched again when the spool was lost."""
    datasets = spool.load_series(run_id, pixels=pixels)
    if datasets is None:
        datasets = worker_services.current().dicom.retrieve_series(study["study_instance_uid"], series_uid)
        spool.save_series(run_id, datasets)
    return datasets


def _prediction(run_id: str, study: Study, series_uid: str) -> Prediction:
    """The prediction from the spool, computed again when the spool was lost."""
    return spool.load_prediction(run_id) or _infer(run_id, study, series_uid)


def _infer(run_id: str, study: Study, series_uid: str) -> Prediction:
    services = worker_services.current()
    run: Callable[[list[Dataset]], Prediction] = services.run_pipeline
    with services.pipeline_lock:
        prediction = run(_series(run_id, study, series_uid, pixels=True))
    spool.save_prediction(run_id, prediction)
    return prediction
