"""One transaction with everything a run says: all of it becomes visible, or nothing (stage 5).

https://hl7.org/fhir/R4/http.html#transaction; every entry is a conditional create: a replay writes nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from urllib.parse import quote

from ai_services.prediction import Prediction
from ai_services.recommendation.evaluate import evaluate
from ai_services.recommendation.facts import collect_facts
from ai_services.recommendation.rule_base import RuleBase
from ai_services.results.care_plan import OptionContext, build_care_plan, build_guidance_response, build_request_group
from ai_services.results.context import Resource, RunContext, model_of
from ai_services.results.device import build_device
from ai_services.results.diagnostic_report import build_diagnostic_report
from ai_services.results.dicom_objects import result_objects
from ai_services.results.observation import build_numbering, build_observation, finding_kind
from ai_services.results.provenance import build_provenance
from ai_services.results.run_record import RunRecord
from foramen.kernel.identifiers import derived_uuid
from terminology import systems


@dataclass(slots=True)
class TransactionBuilder:
    """Collects the entries of one transaction Bundle."""

    entries: list[dict[str, Any]] = field(default_factory=list)

    def create(self, resource: Resource, urn: str) -> str:
        """Add a conditional create on the resource's identifier; returns the reference to use in other entries."""
        identifier = resource["identifier"][0]
        return self._create(resource, urn, f"identifier={_token(identifier['system'], identifier['value'])}")

    def create_tagged(self, resource: Resource, urn: str) -> str:
        """Add a conditional create of a type without identifier (Provenance): a tag carries the key instead."""
        tag = {"system": systems.IDENTIFIER_RESULT, "code": urn}
        resource["meta"] = {**resource.get("meta", {}), "tag": [*resource.get("meta", {}).get("tag", []), tag]}
        return self._create(resource, urn, f"_tag={_token(tag['system'], tag['code'])}")

    def _create(self, resource: Resource, urn: str, if_none_exist: str) -> str:
        self.entries.append(
            {
                "fullUrl": urn,
                "resource": resource,
                "request": {"method": "POST", "url": resource["resourceType"], "ifNoneExist": if_none_exist},
            }
        )
        return urn

    def replace(self, resource: Resource) -> None:
        """Add an update that fails (412) when somebody changed the resource since it was read."""
        reference = f"{resource['resourceType']}/{resource['id']}"
        self.entries.append(
            {
                "fullUrl": f"urn:uuid:{derived_uuid('replace', reference)}",
                "resource": resource,
                "request": {"method": "PUT", "url": reference, "ifMatch": f'W/"{resource["meta"]["versionId"]}"'},
            }
        )

    def bundle(self) -> Resource:
        """The Bundle."""
        return {"resourceType": "Bundle", "type": "transaction", "entry": self.entries}


@dataclass(frozen=True, slots=True)
class ClinicalInputs:
    """What is known beside the images when options are evaluated."""

    patient: Resource
    questionnaire_responses: Sequence[Resource]
    today: date


def build_results(
    prediction: Prediction,
    context: RunContext,
    inputs: ClinicalInputs,
    base: RuleBase,
    superseded: Sequence[Resource] = (),
    run: RunRecord | None = None,
) -> Resource:
    """Build the transaction of one run.

    Parameters
    ----------
    prediction : what the pipeline said
    context : of the run
    inputs : patient and answers
    base : rule base
    superseded : unverified earlier results of the study, already changed to their closing status
    run : what it takes to do the run again
    """
    builder = TransactionBuilder()
    devices = {
        model: builder.create(build_device(model), f"urn:uuid:{derived_uuid('device', model.sha256)}")
        for model in prediction.models
    }
    leading = devices[prediction.models[0]]
    observations = [
        (
            build_observation(item, prediction, context, devices[model_of(item, prediction)]),
            context.urn(finding_kind(item)),
        )
        for item in prediction.findings
    ]
    observations.append(
        (build_numbering(prediction.numbering, prediction, context, leading), context.urn("observation-numbering"))
    )
    references = [builder.create(resource, urn) for resource, urn in observations]
    report = builder.create(build_diagnostic_report(prediction, context, references), context.urn("report"))
    option_context = OptionContext(
        key=context.urn(f"options-{base.version}"),
        patient=context.patient,
        report=report,
        device=leading,
        instant=context.instant,
        synthetic=context.synthetic,
    )
    # Bony geometry alone recommends nothing: no rule of the rule base rests on it.
    found = [resource for resource, _ in observations]
    options = add_options(builder, found, option_context, inputs, base) if prediction.modality == "MR" else []
    provenance = build_provenance(
        targets=[*references, report, *options],
        devices=list(devices.values()),
        sources=[context.imaging_study],
        sop_instance_uids=prediction.sop_instance_uids,
        recorded=context.instant,
        activity="ai-derive",
        synthetic=context.synthetic,
        objects=result_objects(prediction, context),
        run=run,
    )
    builder.create_tagged(provenance, context.urn("provenance"))
    for resource in superseded:
        builder.replace(resource)
    return builder.bundle()


def build_options(
    observations: Sequence[Resource],
    context: OptionContext,
    inputs: ClinicalInputs,
    base: RuleBase,
    superseded: Sequence[Resource] = (),
) -> Resource:
    """Build the transaction that evaluates the options again, from the report's Observations as they now are.

    Parameters
    ----------
    observations : of the report, amended or not
    context : of the evaluation; `report` and `device` are references of stored resources
    inputs : patient and answers
    base : rule base
    superseded : the earlier draft options, already changed to their closing status
    """
    builder = TransactionBuilder()
    options = add_options(builder, observations, context, inputs, base)
    sources = [context.report, *(_reference(item) for item in (*observations, *inputs.questionnaire_responses))]
    provenance = build_provenance(
        targets=options,
        devices=[context.device],
        sources=sources,
        sop_instance_uids=(),
        recorded=context.instant,
        activity="recommend-options",
        synthetic=context.synthetic,
    )
    builder.create_tagged(provenance, context.urn("provenance"))
    for resource in superseded:
        builder.replace(resource)
    return builder.bundle()


def add_options(
    builder: TransactionBuilder,
    observations: Sequence[Resource],
    context: OptionContext,
    inputs: ClinicalInputs,
    base: RuleBase,
) -> list[str]:
    """Evaluate the rules and add RequestGroup, CarePlans and GuidanceResponse; returns their references."""
    facts = collect_facts(observations, inputs.questionnaire_responses, inputs.patient, base, inputs.today)
    recommendation = evaluate(facts.facts, base)
    plans = [
        builder.create(build_care_plan(item, facts, base, context), context.urn(item.option))
        for item in recommendation.assessments
    ]
    group = builder.create(build_request_group(recommendation, facts, base, context, plans), context.urn("options"))
    guidance = builder.create(build_guidance_response(recommendation, base, context, group), context.urn("guidance"))
    return [*plans, group, guidance]


def _token(system: str, value: str) -> str:
    # The query stands inside a URL-like string: "|" separates, anything reserved is escaped (RFC 3986 §2.1).
    return f"{quote(system, safe=':/')}|{quote(value, safe=':')}"


def _reference(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"
