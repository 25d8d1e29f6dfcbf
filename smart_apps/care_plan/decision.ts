/**
 * Stage 8, decide: clinical inputs, the choice of an option and its undoing, each as ONE FHIR transaction. Pure.
 * An option does not turn into a plan: the plan is a new CarePlan based on it. https://hl7.org/fhir/R4/request.html, clinical model §6.3
 */
import { LEVELS, OPTIONS, SYSTEM } from "@client/codes";
import { recommendTask } from "@client/recommend_task";
import { type Answers, itemsOf } from "./clinical_input";
import { numberingUnsure, type Option } from "./options";

export interface Practitioner {
  reference: string;
  display: string;
}

interface Signed {
  practitioner: Practitioner;
  /** FHIR instant. */
  recorded: string;
}

function versionTag(resource: fhir4.Resource): string {
  const version = resource.meta?.versionId;
  if (!version) throw new Error(`${resource.resourceType} without a version cannot be updated safely`);
  return `W/"${version}"`;
}

function keptTags(resource: fhir4.Resource, codes: string[]): fhir4.Coding[] {
  return resource.meta?.tag?.filter((tag) => tag.system === SYSTEM.TAG && codes.includes(tag.code ?? "")) ?? [];
}

function tagged(tags: fhir4.Coding[]): { meta?: fhir4.Meta } {
  return tags.length ? { meta: { tag: tags } } : {};
}

interface ProvenanceInput extends Signed {
  code: "choose" | "revoke";
  display: string;
  targets: string[];
  reason: string;
  sources: { role: fhir4.ProvenanceEntity["role"]; reference: string }[];
  synthetic: fhir4.Coding[];
}

function provenance(input: ProvenanceInput): fhir4.BundleEntry {
  const reason = input.reason.trim();
  const resource: fhir4.Provenance = {
    resourceType: "Provenance",
    ...tagged(input.synthetic),
    target: input.targets.map((reference) => ({ reference })),
    recorded: input.recorded,
    activity: { coding: [{ system: SYSTEM.DECISION, code: input.code, display: input.display }] },
    ...(reason ? { reason: [{ text: reason }] } : {}),
    agent: [
      {
        type: { coding: [{ system: SYSTEM.PROVENANCE_AGENT, code: "verifier", display: "Verifier" }] },
        who: input.practitioner,
      },
    ],
    entity: input.sources.map(({ role, reference }) => ({ role, what: { reference } })),
  };
  return { resource, request: { method: "POST", url: "Provenance" } };
}

export interface Choice extends Signed {
  option: Option;
  title: string;
  description: string;
  level: string;
  side: string;
  note: string;
  reason: string;
  /** A hold of the rule base stands: choosing is an override (rule R66). */
  held: boolean;
  /** The plan that is active now, if any: it is replaced. */
  current: fhir4.CarePlan | undefined;
  /** `urn:uuid:…` of the new plan inside the Bundle. */
  fullUrl: string;
}

/** Whether the surgeon plans for another level than the rules looked at (hazard H02, wrong level). */
export function otherLevel(option: Option, level: string): boolean {
  return option.level !== undefined && level !== "" && level !== option.level;
}

/** Whether this choice goes against the rule base, or beyond what it looked at, and so needs a reason. */
export function needsReason(option: Option, held: boolean, level: string): boolean {
  return held || option.verdict !== "eligible" || numberingUnsure(option) || otherLevel(option, level);
}

function newPlan(choice: Choice): fhir4.CarePlan {
  const { option, current } = choice;
  const note = choice.note.trim();
  const description = choice.description.trim();
  const concept = option.plan.category?.[0] ?? { text: OPTIONS[option.code]?.zh ?? option.code };
  return {
    resourceType: "CarePlan",
    ...tagged(keptTags(option.plan, ["AI-GENERATED", "SYNTHETIC"])),
    extension: [
      { url: SYSTEM.EXTENSION_PLAN_LEVEL, valueCoding: { system: SYSTEM.LEVEL, code: choice.level } },
      { url: SYSTEM.EXTENSION_PLAN_SIDE, valueCode: choice.side },
    ],
    basedOn: [{ reference: `CarePlan/${option.plan.id}` }],
    ...(current ? { replaces: [{ reference: `CarePlan/${current.id}` }] } : {}),
    status: "active",
    intent: "plan",
    ...(option.plan.category ? { category: option.plan.category } : {}),
    title: choice.title.trim(),
    ...(description ? { description } : {}),
    subject: option.plan.subject,
    created: choice.recorded,
    author: choice.practitioner,
    ...(option.plan.supportingInfo ? { supportingInfo: option.plan.supportingInfo } : {}),
    activity: [{ detail: { kind: "ServiceRequest", code: concept, status: "not-started" } }],
    ...(note ? { note: [{ authorReference: choice.practitioner, time: choice.recorded, text: note }] } : {}),
  };
}

function revoked(plan: fhir4.CarePlan): fhir4.BundleEntry {
  const resource: fhir4.CarePlan = { ...plan, status: "revoked" };
  return { resource, request: { method: "PUT", url: `CarePlan/${plan.id}`, ifMatch: versionTag(plan) } };
}

/**
 * Transaction that makes an option the plan.
 *
 * @throws Error when title, level or side is missing, or a reason is needed and not given.
 */
export function choiceBundle(choice: Choice): fhir4.Bundle {
  if (!choice.title.trim()) throw new Error("A plan needs a title");
  if (!LEVELS.some((level) => level === choice.level)) throw new Error("A plan needs a level");
  if (!["left", "right", "bilateral"].includes(choice.side)) throw new Error("A plan needs a side");
  if (needsReason(choice.option, choice.held, choice.level) && !choice.reason.trim()) throw new Error("A reason is required");
  const named = LEVELS.find((level) => choice.title.includes(level));
  if (named !== undefined && named !== choice.level) throw new Error(`The title names ${named}, the plan is for ${choice.level}`);
  const { current, option } = choice;
  const targets = [choice.fullUrl, ...(current ? [`CarePlan/${current.id}`] : [])];
  const optionVersion = `CarePlan/${option.plan.id}/_history/${option.plan.meta?.versionId}`;
  return {
    resourceType: "Bundle",
    type: "transaction",
    entry: [
      { fullUrl: choice.fullUrl, resource: newPlan(choice), request: { method: "POST", url: "CarePlan" } },
      ...(current ? [revoked(current)] : []),
      provenance({
        ...choice,
        code: "choose",
        display: "Choose",
        targets,
        sources: [{ role: "derivation", reference: optionVersion }],
        synthetic: keptTags(option.plan, ["SYNTHETIC"]),
      }),
    ],
  };
}

export interface Revocation extends Signed {
  plan: fhir4.CarePlan;
  reason: string;
}

/** Transaction that withdraws the plan; the options stay. */
export function revocationBundle(revocation: Revocation): fhir4.Bundle {
  if (!revocation.reason.trim()) throw new Error("A reason is required");
  const { plan } = revocation;
  return {
    resourceType: "Bundle",
    type: "transaction",
    entry: [
      revoked(plan),
      provenance({
        ...revocation,
        code: "revoke",
        display: "Revoke",
        targets: [`CarePlan/${plan.id}`],
        sources: [{ role: "revision", reference: `CarePlan/${plan.id}/_history/${plan.meta?.versionId}` }],
        synthetic: keptTags(plan, ["SYNTHETIC"]),
      }),
    ],
  };
}

export interface InputSave extends Signed {
  patientId: string;
  reportId: string;
  answers: Answers;
  synthetic: fhir4.Coding[];
  fullUrl: string;
}

/** Transaction that keeps the clinical inputs and asks for fresh options. */
export function inputBundle(save: InputSave): fhir4.Bundle {
  const subject = { reference: `Patient/${save.patientId}` };
  const response: fhir4.QuestionnaireResponse = {
    resourceType: "QuestionnaireResponse",
    ...tagged(save.synthetic),
    questionnaire: SYSTEM.INTAKE_QUESTIONNAIRE,
    status: "completed",
    subject,
    authored: save.recorded,
    author: save.practitioner,
    item: itemsOf(save.answers),
  };
  return {
    resourceType: "Bundle",
    type: "transaction",
    entry: [
      { fullUrl: save.fullUrl, resource: response, request: { method: "POST", url: "QuestionnaireResponse" } },
      recommendTask({
        reportId: save.reportId,
        subject,
        requester: save.practitioner,
        recorded: save.recorded,
        synthetic: save.synthetic,
        answers: save.fullUrl,
      }),
    ],
  };
}
