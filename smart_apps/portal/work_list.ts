/** AI Tasks as rows of the worklist: pure reading of FHIR Tasks. https://hl7.org/fhir/R4/task.html */
import { ANALYSE_STUDY, MODEL_RECALLED, SYSTEM } from "@client/codes";
import { type Parameters, resourcesOf } from "@client/fhir";
import type { Recall } from "@client/recall";
import { idOf, isSynthetic, isSyntheticPatient, studyInstanceUid, uidOf } from "@client/resource";

export const PAGE_SIZE = 15;

/** Filters a person picks, and the Task states each stands for; what was recalled is in `attention`, and not in `done`. */
export const FILTERS = {
  all: [],
  waiting: ["requested", "received", "accepted", "ready"],
  running: ["in-progress"],
  done: ["completed"],
  attention: ["on-hold", "rejected", "failed"],
  expedited: [],
} as const;
/** Priorities that go before routine, the most urgent first. https://hl7.org/fhir/R4/valueset-request-priority.html */
export const EXPEDITED = ["stat", "asap", "urgent"] as const;
export type Expedited = (typeof EXPEDITED)[number];
export type Filter = keyof typeof FILTERS;
/** Business status of a Task whose result was recalled (ai_services/models/recall.py), as a search value. */
const RECALLED_WORK = `${SYSTEM.TAG}|${MODEL_RECALLED}`;

export interface WorkRow {
  taskId: string;
  /** Of the Task; `recalled` where the model that wrote its result was recalled, as the work is done and nothing of it counts. */
  status: string;
  recall: Recall | undefined;
  /** Undefined: routine, as the standard says of a Task that names none. */
  priority: Expedited | undefined;
  /** Progress word while running, reason in words when held, declined or failed. */
  note: string | undefined;
  /** The same in English; undefined where the Task says it in Chinese only. */
  noteEn: string | undefined;
  description: string;
  authoredOn: string | undefined;
  lastModified: string | undefined;
  patientId: string | undefined;
  patient: fhir4.Patient | undefined;
  studyInstanceUid: string | undefined;
  reportId: string | undefined;
  synthetic: boolean;
}

export function taskQuery(filter: Filter): Parameters {
  const query: Parameters = [
    ["code", `${SYSTEM.TASK_CODE}|${ANALYSE_STUDY}`],
    ["_include", "Task:patient"],
    ["_include", "Task:focus"],
    ["_sort", "-authored-on"],
    ["_count", String(PAGE_SIZE)],
  ];
  if (filter === "expedited") query.push(["priority", EXPEDITED.join(",")]);
  if (filter === "done") query.push(["business-status:not", RECALLED_WORK]);
  // One or the other of two parameters: https://hl7.org/fhir/R4/search_filter.html
  if (filter === "attention") {
    const states = FILTERS.attention.map((status) => `status eq ${status}`);
    query.push(["_filter", [...states, `business-status eq ${RECALLED_WORK}`].join(" or ")]);
  } else if (FILTERS[filter].length) query.push(["status", FILTERS[filter].join(",")]);
  return query;
}

/** DiagnosticReports that Tasks of a page have written. */
export function reportIds(bundle: fhir4.Bundle): string[] {
  return resourcesOf(bundle, "Task").flatMap((task) => reportOf(task) ?? []);
}

/** Those of the reports whose model was recalled, and what is said of it. */
export function recalledQuery(ids: string[]): Parameters {
  return [
    ["_id", ids.join(",")],
    ["_tag", `${SYSTEM.TAG}|${MODEL_RECALLED}`],
    ["_revinclude", "Provenance:target"],
    ["_count", String(ids.length)],
  ];
}

function reportOf(task: fhir4.Task): string | undefined {
  return task.output?.map((output) => idOf(output.valueReference, "DiagnosticReport")).find((id) => id !== undefined);
}

function noteOf(task: fhir4.Task): string | undefined {
  if (task.status === "in-progress") return task.businessStatus?.text;
  if (FILTERS.attention.some((status) => status === task.status)) return task.statusReason?.text;
  return undefined;
}

/** A reason is written with Chinese text and a coding whose display is English (terminology/analysis_reasons.py). */
function englishOf(task: fhir4.Task): string | undefined {
  if (!FILTERS.attention.some((status) => status === task.status)) return undefined;
  return task.statusReason?.coding?.find((coding) => coding.system === SYSTEM.TASK_REASON)?.display;
}

function studyOf(task: fhir4.Task, studies: Map<string, fhir4.ImagingStudy>): fhir4.ImagingStudy | undefined {
  const id = idOf(task.focus, "ImagingStudy");
  return id === undefined ? undefined : studies.get(id);
}

interface Beside {
  patients: Map<string, fhir4.Patient>;
  studies: Map<string, fhir4.ImagingStudy>;
  recalls: ReadonlyMap<string, Recall>;
}

function rowOf(task: fhir4.Task, { patients, studies, recalls }: Beside): WorkRow {
  const patientId = idOf(task.for, "Patient");
  const patient = patientId === undefined ? undefined : patients.get(patientId);
  const study = studyOf(task, studies);
  const report = reportOf(task);
  const recall = recalls.get(report ?? "");
  return {
    taskId: task.id ?? "",
    status: recall ? "recalled" : task.status,
    recall,
    priority: EXPEDITED.find((priority) => priority === task.priority),
    note: noteOf(task),
    noteEn: englishOf(task),
    description: task.description ?? study?.description ?? "",
    authoredOn: task.authoredOn,
    lastModified: task.lastModified ?? task.meta?.lastUpdated,
    patientId,
    patient,
    studyInstanceUid: uidOf(task.focus?.identifier?.value) ?? studyInstanceUid(study?.identifier),
    reportId: report,
    synthetic: isSynthetic(task) || isSynthetic(study) || isSyntheticPatient(patient),
  };
}

function byId<T extends { id?: string }>(resources: T[]): Map<string, T> {
  return new Map(resources.flatMap((resource) => (resource.id ? [[resource.id, resource] as const] : [])));
}

/** Rows of a page; `recalls` names the reports on it that were recalled. */
export function workRows(bundle: fhir4.Bundle, recalls: ReadonlyMap<string, Recall>): WorkRow[] {
  const beside = { patients: byId(resourcesOf(bundle, "Patient")), studies: byId(resourcesOf(bundle, "ImagingStudy")), recalls };
  return resourcesOf(bundle, "Task").map((task) => rowOf(task, beside));
}
