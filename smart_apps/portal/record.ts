/** Reads a page of the worklist, and which of its results were recalled: neither is shown without the other. */
import { resourcesOf } from "@client/fhir";
import { isRecalled } from "@client/resource";
import { type Recall, recallOf } from "@client/recall";
import type { Session } from "@client/session";
import { type Filter, recalledQuery, reportIds, taskQuery } from "./work_list";

export interface WorkPage {
  tasks: fhir4.Bundle;
  /** Id of a DiagnosticReport → its recall; what is not in it was not recalled. */
  recalls: ReadonlyMap<string, Recall>;
}

/**
 * One page of Tasks: the first one of a filter, or the one that a paging link leads to.
 * Fails as a whole when the recalls cannot be read: a recalled result must not look like a valid one.
 */
export async function loadWork(session: Session, filter: Filter, url: string | undefined, signal: AbortSignal): Promise<WorkPage> {
  const tasks = await (url ? session.fhir.page(url, signal) : session.fhir.search("Task", taskQuery(filter), signal));
  const ids = reportIds(tasks);
  if (ids.length === 0) return { tasks, recalls: new Map() };
  const found = await session.fhir.search("DiagnosticReport", recalledQuery(ids), signal);
  const provenances = resourcesOf(found, "Provenance");
  const recalled = resourcesOf(found, "DiagnosticReport").filter(isRecalled);
  return { tasks, recalls: new Map(recalled.map(({ id = "" }) => [id, recallOf(provenances, `DiagnosticReport/${id}`)])) };
}
