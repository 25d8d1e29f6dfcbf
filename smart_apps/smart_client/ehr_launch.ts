/** EHR launch of one of our apps for a patient, asked for with the token of the app at hand. SMART App Launch 2.2 §"EHR launch" */
import { reach } from "./fhir_error";
import type { Session } from "./session";

export type AppName = "result-review" | "care-plan";

/** Address that starts the app for one patient. */
export async function requestLaunch(session: Session, app: AppName, patientId: string, intent?: string): Promise<string> {
  const response = await reach("/auth/launch", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json", Authorization: `Bearer ${await session.token()}` },
    body: JSON.stringify({ client_id: app, patient: patientId, ...(intent ? { intent } : {}) }),
  });
  const { launch_url: launchUrl } = (await response.json()) as { launch_url: string };
  const target = new URL(launchUrl, location.origin);
  if (target.origin !== location.origin) throw new Error(`The launch address leads to another server: ${target.origin}`);
  return target.href;
}
