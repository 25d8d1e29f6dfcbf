/** The request for fresh treatment options on the findings and answers of now. Pure. */
import { RECOMMEND_OPTIONS, SYSTEM } from "./codes";

interface RecommendRequest {
  reportId: string;
  /** `Patient/<id>` */
  subject: fhir4.Reference;
  requester: fhir4.Reference;
  /** FHIR instant. */
  recorded: string;
  synthetic: fhir4.Coding[];
  /** Reference of the answers that caused the request, if any. */
  answers?: string;
}

export function recommendTask(request: RecommendRequest): fhir4.BundleEntry {
  const { reportId, subject, requester, recorded, synthetic, answers } = request;
  const resource: fhir4.Task = {
    resourceType: "Task",
    ...(synthetic.length ? { meta: { tag: synthetic } } : {}),
    status: "requested",
    intent: "order",
    code: { coding: [{ system: SYSTEM.TASK_CODE, code: RECOMMEND_OPTIONS, display: "Recommend options" }], text: "更新治疗方案建议" },
    focus: { reference: `DiagnosticReport/${reportId}` },
    for: subject,
    authoredOn: recorded,
    lastModified: recorded,
    requester,
    ...(answers ? { input: [{ type: { text: "QuestionnaireResponse" }, valueReference: { reference: answers } }] } : {}),
  };
  return { resource, request: { method: "POST", url: "Task" } };
}
