/**
 * Stage 8, decide: a clinician's verdict on an AI report as ONE FHIR transaction. Pure.
 * https://hl7.org/fhir/R4/http.html#transaction, clinical model §6.3 and §6.4
 */
import { SYNTHETIC, SYSTEM } from "@client/codes";
import { recommendTask } from "@client/recommend_task";
import { isClosed } from "@client/reports";
import { codeOf } from "@client/resource";

export type DecisionKind = "verify" | "amend" | "reject";

export interface Amendment {
  observationId: string;
  /** The value a person chose instead of the model's. */
  coding: fhir4.Coding;
  text: string;
}

export interface Decision {
  kind: DecisionKind;
  report: fhir4.DiagnosticReport;
  observations: fhir4.Observation[];
  amendments?: Amendment[];
  /** New wording of the conclusion, when it was edited. */
  conclusion?: string;
  reason: string;
  practitioner: { reference: string; display: string };
  /** FHIR instant. */
  recorded: string;
}

const ACTIVITY: Record<DecisionKind, string> = { verify: "Verify", amend: "Amend", reject: "Reject" };
/** Said by the model about its own value: no longer true of a value that a person set. */
const MODEL_ONLY = new Set(["confidence", "uncertainty", "expected"]);

function versionTag(resource: fhir4.Resource): string {
  const version = resource.meta?.versionId;
  if (!version) throw new Error(`${resource.resourceType} without a version cannot be updated safely`);
  return `W/"${version}"`;
}

function update(resource: fhir4.FhirResource): fhir4.BundleEntry {
  const url = `${resource.resourceType}/${resource.id}`;
  return { resource, request: { method: "PUT", url, ifMatch: versionTag(resource) } };
}

/** A person set the value: the method of the model goes, the person is the performer. */
function amendedObservation(observation: fhir4.Observation, amendment: Amendment, practitioner: Decision["practitioner"]): fhir4.Observation {
  const { dataAbsentReason: _absent, method: _method, component, ...rest } = observation;
  const kept = component?.filter((item) => !MODEL_ONLY.has(codeOf(item.code, SYSTEM.COMPONENT) ?? ""));
  return {
    ...rest,
    ...(kept?.length ? { component: kept } : {}),
    status: "amended",
    performer: [practitioner],
    valueCodeableConcept: { coding: [amendment.coding], text: amendment.text },
  };
}

function decidedObservation(observation: fhir4.Observation, decision: Decision): fhir4.Observation {
  if (decision.kind === "reject") return { ...observation, status: "entered-in-error" };
  const amendment = decision.amendments?.find((item) => item.observationId === observation.id);
  if (decision.kind === "amend" && amendment) return amendedObservation(observation, amendment, decision.practitioner);
  return observation.status === "preliminary" ? { ...observation, status: "final" } : observation;
}

function reportStatus(kind: DecisionKind): fhir4.DiagnosticReport["status"] {
  if (kind === "reject") return "entered-in-error";
  return kind === "amend" ? "amended" : "final";
}

function decidedReport(decision: Decision): fhir4.DiagnosticReport {
  const { report, kind, practitioner, conclusion } = decision;
  const others = report.resultsInterpreter?.filter((item) => item.reference !== practitioner.reference) ?? [];
  return {
    ...report,
    status: reportStatus(kind),
    ...(kind === "reject" ? {} : { resultsInterpreter: [...others, practitioner] }),
    ...(kind === "amend" && conclusion !== undefined ? { conclusion } : {}),
  };
}

function reference(resource: fhir4.Resource): fhir4.Reference {
  return { reference: `${resource.resourceType}/${resource.id}` };
}

/** The version that was judged stays addressable, so that model and clinician can be compared later. */
function judgedVersion(resource: fhir4.Resource): fhir4.ProvenanceEntity {
  const { resourceType, id, meta } = resource;
  return { role: "revision", what: { reference: `${resourceType}/${id}/_history/${meta?.versionId}` } };
}

function syntheticTags(report: fhir4.DiagnosticReport): fhir4.Coding[] {
  return report.meta?.tag?.filter((tag) => tag.system === SYSTEM.TAG && tag.code === SYNTHETIC) ?? [];
}

/** Options follow the findings that were signed, so they are asked for again; a rejected report has none. */
function freshOptions(decision: Decision): fhir4.BundleEntry[] {
  const { report, kind, practitioner, recorded } = decision;
  if (kind === "reject" || !report.id || !report.subject) return [];
  const subject = { reference: report.subject.reference ?? "" };
  return [recommendTask({ reportId: report.id, subject, requester: practitioner, recorded, synthetic: syntheticTags(report) })];
}

function provenanceOf(decision: Decision, changed: fhir4.Resource[]): fhir4.Provenance {
  const tags = syntheticTags(decision.report);
  const reason = decision.reason.trim();
  return {
    resourceType: "Provenance",
    ...(tags.length ? { meta: { tag: tags } } : {}),
    target: changed.map(reference),
    recorded: decision.recorded,
    activity: {
      coding: [{ system: SYSTEM.DECISION, code: decision.kind, display: ACTIVITY[decision.kind] }],
    },
    ...(reason ? { reason: [{ text: reason }] } : {}),
    agent: [
      {
        type: { coding: [{ system: SYSTEM.PROVENANCE_AGENT, code: "verifier", display: "Verifier" }] },
        who: decision.practitioner,
      },
    ],
    entity: changed.map(judgedVersion),
  };
}

/**
 * Bundle to post.
 *
 * @throws Error when the report is superseded or rejected, an amendment or rejection has no reason, or an amendment names
 * an observation that is not in the report or is closed itself.
 */
export function decisionBundle(decision: Decision): fhir4.Bundle {
  if (isClosed(decision.report)) throw new Error("The report was superseded or rejected and cannot be decided on");
  if (decision.kind !== "verify" && !decision.reason.trim()) throw new Error("A reason is required");
  const known = new Set(decision.observations.map((observation) => observation.id));
  const stranger = decision.amendments?.find((amendment) => !known.has(amendment.observationId));
  if (stranger) throw new Error(`Observation/${stranger.observationId} is not part of this report`);
  const amended = new Set(decision.amendments?.map((amendment) => amendment.observationId));
  const closed = decision.observations.find((observation) => isClosed(observation) && amended.has(observation.id ?? ""));
  if (closed) throw new Error(`Observation/${closed.id} was superseded or rejected and cannot be amended`);
  const updated = decision.observations
    .map((before) => ({ before, after: decidedObservation(before, decision) }))
    .filter(({ before, after }) => before !== after);
  const report = decidedReport(decision);
  const changed = [report, ...updated.map(({ before }) => before)];
  return {
    resourceType: "Bundle",
    type: "transaction",
    entry: [
      update(report),
      ...updated.map(({ after }) => update(after)),
      { resource: provenanceOf(decision, changed), request: { method: "POST", url: "Provenance" } },
      ...freshOptions(decision),
    ],
  };
}
