/** What went wrong, in words a clinician can read. https://hl7.org/fhir/R4/operationoutcome.html */
import i18next from "i18next";

export class FhirError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
    this.name = "FhirError";
  }
}

function isOutcome(body: unknown): body is fhir4.OperationOutcome {
  return typeof body === "object" && body !== null && (body as { resourceType?: string }).resourceType === "OperationOutcome";
}

/** Text of every issue, `details.text` (for people) before `diagnostics` (for developers). */
export function outcomeText(outcome: fhir4.OperationOutcome): string {
  const texts = (outcome.issue ?? []).map((issue) => {
    const text = issue.details?.text ?? issue.diagnostics ?? issue.code;
    const place = issue.expression?.join(", ");
    return place ? `${text} (${place})` : text;
  });
  return [...new Set(texts)].join("; ");
}

function statusText(status: number): string {
  if (status === 0) return i18next.t("error.offline");
  if (status === 401) return i18next.t("error.expired");
  if (status === 403) return i18next.t("error.forbidden");
  if (status === 404 || status === 410) return i18next.t("error.notFound");
  if (status === 409 || status === 412) return i18next.t("error.changed");
  if (status >= 500) return i18next.t("error.server");
  return i18next.t("error.refused");
}

/** Reads an error answer: OperationOutcome, problem JSON or plain status. */
export async function errorOf(response: Response): Promise<FhirError> {
  let detail = "";
  try {
    const body: unknown = await response.json();
    if (isOutcome(body)) detail = outcomeText(body);
  } catch {
    // The body is no JSON: the status alone has to tell.
  }
  const lead = statusText(response.status);
  return new FhirError(response.status, detail ? `${lead} ${detail}` : `${lead} (HTTP ${response.status})`);
}

/** `fetch` whose failure to reach the server is an error of ours with status 0. */
export async function reach(input: string, init: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(input, init);
  } catch (cause) {
    if (init.signal?.aborted) throw cause;
    throw new FhirError(0, statusText(0));
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

/** Any thrown value as text for the screen; never a stack. */
export function messageOf(error: unknown): string {
  return error instanceof Error && error.message ? error.message : i18next.t("error.unknown");
}
