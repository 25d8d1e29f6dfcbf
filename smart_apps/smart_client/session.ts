/** Who is signed in, for which patient, and how to reach the record and the pixels. */
import type Client from "fhirclient/lib/Client";
import { DicomWebClient } from "./dicomweb";
import { FhirClient } from "./fhir";
import { authorize, fhirBase, forget } from "./launch";

/** An app.json: how the authorization server knows the app. */
export interface AppManifest {
  client_id: string;
  redirect_path: string;
  scope: string;
}

export interface SessionUser {
  /** `Practitioner/id`; absent when the account belongs to no practitioner. */
  reference?: string;
  name: string;
}

export interface Session {
  app: AppManifest;
  user: SessionUser;
  patientId: string | undefined;
  intent: string | undefined;
  /** What was granted, as the token response names it. */
  scope: string;
  idToken: string | undefined;
  token: () => Promise<string>;
  fhir: FhirClient;
  dicomWeb: DicomWebClient;
  signInAgain: () => Promise<void>;
  forget: () => void;
}

/** `Practitioner/7` of `Practitioner/7` or `http://host/fhir/Practitioner/7`. */
export function relativeReference(reference: string): string {
  return reference.split("/").slice(-2).join("/");
}

interface IdTokenClaims {
  fhirUser?: string;
  profile?: string;
  name?: string;
  preferred_username?: string;
  sub?: string;
}

export function nameText(names: fhir4.HumanName[] | undefined): string {
  const name = names?.find((item) => item.use === "official") ?? names?.[0];
  if (!name) return "";
  if (name.text) return name.text;
  const family = name.family ?? "";
  const given = (name.given ?? []).join(" ");
  const chinese = /\p{Script=Han}/u.test(family + given);
  return chinese ? family + given : [given, family].filter(Boolean).join(" ");
}

async function userOf(claims: IdTokenClaims, fhir: FhirClient): Promise<SessionUser> {
  const fallback = claims.name ?? claims.preferred_username ?? claims.sub ?? "";
  const fhirUser = claims.fhirUser ?? claims.profile;
  if (!fhirUser || !/(^|\/)Practitioner\/[^/]+$/.test(fhirUser)) return { name: fallback };
  const reference = relativeReference(fhirUser);
  try {
    const practitioner = await fhir.read("Practitioner", reference.split("/")[1] ?? "");
    return { reference, name: nameText(practitioner.name) || fallback };
  } catch {
    // The name is a courtesy; who signs is the reference, which the server checks against the token.
    return { reference, name: fallback };
  }
}

export async function openSession(app: AppManifest, client: Client): Promise<Session> {
  const response = client.state.tokenResponse ?? {};
  // Refreshed shortly before it runs out, as long as the sign-in session lives (scope online_access).
  const token = async () => {
    if (client.state.tokenResponse?.refresh_token) await client.refreshIfNeeded().catch(() => undefined);
    return client.state.tokenResponse?.access_token ?? "";
  };
  const fhir = new FhirClient(fhirBase(), token);
  return {
    app,
    user: await userOf((client.getIdToken() ?? {}) as IdTokenClaims, fhir),
    patientId: response.patient,
    intent: typeof response["intent"] === "string" ? response["intent"] : undefined,
    scope: typeof response.scope === "string" ? response.scope : "",
    idToken: response.id_token,
    token,
    fhir,
    dicomWeb: new DicomWebClient(`${location.origin}/dicom-web`, token),
    signInAgain: () => authorize(app),
    forget: () => forget(app),
  };
}
