/** Reads what the care plan screen needs, for the launch patient only. */
import { RECOMMEND_OPTIONS, SYSTEM } from "@client/codes";
import { resourcesOf } from "@client/fhir";
import { newestOpen, sortReports } from "@client/reports";
import type { Session } from "@client/session";
import { latestResponse } from "./clinical_input";
import { type Hold, holdsOf, missingInputs, type Option, optionOf, planIds } from "./options";

export interface Recommendation {
  group: fhir4.RequestGroup | undefined;
  options: Option[];
  holds: Hold[];
  missing: string[];
  /** Report the options are based on; else the newest one that was neither superseded nor rejected. */
  report: fhir4.DiagnosticReport | undefined;
  /** A report that is newer than the one the options rest on. */
  newerReport: boolean;
}

export interface PlanHistory {
  /** Plans that a person made, newest first. */
  plans: fhir4.CarePlan[];
  provenance: fhir4.Provenance[];
}

function time(resource: fhir4.Resource, ...candidates: (string | undefined)[]): number {
  return Date.parse(candidates.find((value) => value !== undefined) ?? resource.meta?.lastUpdated ?? "") || 0;
}

async function newestGroup(session: Session, patientId: string): Promise<fhir4.RequestGroup | undefined> {
  const groups = await session.fhir.all("RequestGroup", [
    ["patient", patientId],
    ["intent", "proposal"],
    ["_count", "50"],
  ]);
  const usable = groups.filter((group) => group.status === "draft" || group.status === "active");
  return usable.sort((a, b) => time(b, b.authoredOn) - time(a, a.authoredOn))[0];
}

async function optionsOf(session: Session, patientId: string, group: fhir4.RequestGroup): Promise<Option[]> {
  const ids = planIds(group);
  if (ids.length === 0) return [];
  const plans = await session.fhir.all("CarePlan", [
    ["_id", ids.join(",")],
    ["patient", patientId],
    ["_count", String(Math.max(ids.length, 20))],
  ]);
  const byId = new Map(plans.map((plan) => [plan.id, plan]));
  const found = ids.flatMap((id) => byId.get(id) ?? []);
  // A list of options that lost some on the way must not look complete.
  if (found.length !== ids.length) throw new Error(`${ids.length - found.length} of ${ids.length} options could not be read`);
  return found.map(optionOf);
}

export async function loadRecommendation(session: Session, patientId: string): Promise<Recommendation> {
  const [group, unsorted] = await Promise.all([
    newestGroup(session, patientId),
    session.fhir.all("DiagnosticReport", [
      ["patient", patientId],
      ["_count", "50"],
    ]),
  ]);
  const reports = sortReports(unsorted);
  const options = group ? await optionsOf(session, patientId, group) : [];
  const basis = reports.find((report) => report.id === options[0]?.reportId);
  const newest = newestOpen(reports);
  return {
    group,
    options,
    holds: group ? holdsOf(group) : [],
    missing: group ? missingInputs(group) : [],
    report: basis ?? newest,
    newerReport: basis !== undefined && newest !== undefined && newest.id !== basis.id,
  };
}

export async function loadPlans(session: Session, patientId: string): Promise<PlanHistory> {
  const plans = await session.fhir.all("CarePlan", [
    ["patient", patientId],
    ["intent", "plan"],
    ["_count", "50"],
  ]);
  plans.sort((a, b) => time(b, b.created) - time(a, a.created));
  if (plans.length === 0) return { plans, provenance: [] };
  const targets = plans.map((plan) => `CarePlan/${plan.id}`).join(",");
  const provenance = await session.fhir.all("Provenance", [
    ["target", targets],
    ["_count", "100"],
  ]);
  return { plans, provenance };
}

/** The last answers for this patient that were completed. */
export async function loadInputs(session: Session, patientId: string): Promise<fhir4.QuestionnaireResponse | null> {
  const responses = await session.fhir.all("QuestionnaireResponse", [
    ["patient", patientId],
    ["questionnaire", SYSTEM.INTAKE_QUESTIONNAIRE],
    ["_count", "50"],
  ]);
  return latestResponse(responses) ?? null;
}

/** The newest request for fresh options. */
export async function loadRecommendTask(session: Session, patientId: string): Promise<fhir4.Task | null> {
  const bundle = await session.fhir.search("Task", [
    ["patient", patientId],
    ["code", `${SYSTEM.TASK_CODE}|${RECOMMEND_OPTIONS}`],
    ["_sort", "-_lastUpdated"],
    ["_count", "1"],
  ]);
  return resourcesOf(bundle, "Task")[0] ?? null;
}

export function isRunning(task: fhir4.Task | null | undefined): boolean {
  return task !== null && task !== undefined && ["requested", "received", "accepted", "ready", "in-progress"].includes(task.status);
}

/** Who did what to a plan, newest first. */
export function actsOn(plan: fhir4.CarePlan, provenance: fhir4.Provenance[]): { kind: string; who: string; when: string; reason: string | undefined }[] {
  return provenance
    .filter((item) => item.target.some((target) => target.reference?.endsWith(`CarePlan/${plan.id}`) || target.reference?.includes(`CarePlan/${plan.id}/`)))
    .map((item) => ({
      kind: item.activity?.coding?.find((coding) => coding.system === SYSTEM.DECISION)?.code ?? "",
      who: item.agent[0]?.who.display ?? item.agent[0]?.who.reference ?? "",
      when: item.recorded,
      reason: item.reason?.[0]?.text,
    }))
    .sort((a, b) => Date.parse(b.when) - Date.parse(a.when));
}
