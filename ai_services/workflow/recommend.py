"""The run of a `recommend-options` Task: evaluate the rules again on findings and answers of now (stage 5).

The Task's focus is the DiagnosticReport. Findings come from its Observations, so that amended ones count.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dbos import DBOS

from ai_services.workflow import claim
from ai_services.workflow import services as worker_services
from ai_services.workflow.steps import answer, step

Resource = dict[str, Any]


@DBOS.workflow(name="recommend-options")  # type: ignore[untyped-decorator]
def recommend_options(task_id: str, run_id: str, trace_id: str) -> None:
    """Work on one Task; a second start with the same run id continues instead of starting again."""

    def work() -> tuple[str, str]:
        at = step("begin", begin, task_id, run_id)
        return "RequestGroup", step("recommend", recommend, task_id, run_id, at)

    answer(task_id, run_id, trace_id, work)


def begin(task_id: str, run_id: str) -> str:
    """Take the time once, so that a replay writes the same time."""
    services = worker_services.current()
    services.wait(claim.read_own(services.fhir, task_id, run_id))
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def recommend(task_id: str, run_id: str, at: str) -> str:
    """Evaluate and publish; the earlier draft options give way. Returns the reference of the RequestGroup."""
    from ai_services.recommendation.rule_base import load_rule_base
    from ai_services.results.bundle import ClinicalInputs, build_options
    from ai_services.results.care_plan import OptionContext
    from ai_services.results.context import fhir_instant, is_synthetic
    from ai_services.results.publish import publish_transaction
    from ai_services.results.supersede import close_unverified
    from ai_services.workflow.record import draft_options, observations_of, questionnaire_responses

    services = worker_services.current()
    recorded_at = datetime.fromisoformat(at)

    async def write() -> str:
        fhir = services.fhir
        task = await claim.report_progress(fhir, task_id, run_id, "recommending")
        report = await fhir.read(_report_reference(task))
        patient = report["subject"]["reference"]
        observations = await observations_of(fhir, report)
        answers = await questionnaire_responses(fhir, patient)
        base = load_rule_base()
        context = OptionContext(
            key="|".join(["options", base.version, run_id, *_versions([report, *observations, *answers])]),
            patient=patient,
            report=f"DiagnosticReport/{report['id']}",
            device=_device(observations),
            instant=fhir_instant(recorded_at),
            synthetic=is_synthetic(report),
        )
        inputs = ClinicalInputs(await fhir.read(patient), answers, recorded_at.date())
        earlier = await draft_options(fhir, patient, [context.report])
        kept = [context.urn(kind) for kind in ("options", *base.options)]
        bundle = build_options(observations, context, inputs, base, close_unverified(earlier, keep=kept))
        return await publish_transaction(fhir, bundle, "RequestGroup", context.urn("options"))

    return services.wait(write())


def _report_reference(task: Resource) -> str:
    from ai_services.prediction import PipelineError

    reference = str(task.get("focus", {}).get("reference", ""))
    if not reference.startswith("DiagnosticReport/"):
        raise PipelineError("incomplete-task", "the Task names no report", "任务未指明报告")
    return reference


def _device(observations: list[Resource]) -> str:
    from ai_services.prediction import PipelineError

    for observation in observations:
        if "device" in observation:
            return str(observation["device"]["reference"])
    raise PipelineError("not-an-ai-report", "the report holds no finding of a model", "该报告不含模型给出的所见")


def _versions(resources: list[Resource]) -> list[str]:
    return [f"{item['resourceType']}/{item['id']}/{item['meta']['versionId']}" for item in resources]
