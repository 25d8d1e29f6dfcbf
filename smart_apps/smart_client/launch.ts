/**
 * SMART App Launch 2.2 with PKCE (S256), through fhirclient.
 * https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html
 */
import type Client from "fhirclient/lib/Client";
import adapterModule from "fhirclient/lib/adapters/BrowserAdapter";
import type { AppManifest } from "./session";

// fhirclient is CommonJS: what a default import of it means differs between bundlers, so both are taken.
const BrowserAdapter =
  "default" in adapterModule ? (adapterModule as { default: typeof adapterModule }).default : adapterModule;

/** All apps share one origin and one tab: each keeps its state under its own prefix, or one would answer with another's token. */
class PrefixedStorage {
  constructor(private readonly prefix: string) {}

  has(key: string): boolean {
    return sessionStorage.getItem(this.prefix + key) !== null;
  }

  async get(key: string): Promise<unknown> {
    const text = sessionStorage.getItem(this.prefix + key);
    return text === null ? undefined : JSON.parse(text);
  }

  async set(key: string, value: unknown): Promise<unknown> {
    sessionStorage.setItem(this.prefix + key, JSON.stringify(value));
    return value;
  }

  async unset(key: string): Promise<boolean> {
    const present = sessionStorage.getItem(this.prefix + key) !== null;
    sessionStorage.removeItem(this.prefix + key);
    return present;
  }

  clear(): void {
    const own = Object.keys(sessionStorage).filter((key) => key.startsWith(this.prefix));
    for (const key of own) sessionStorage.removeItem(key);
  }
}

class AppAdapter extends BrowserAdapter {
  constructor(private readonly own: PrefixedStorage) {
    super();
  }

  override getStorage(): PrefixedStorage {
    return this.own;
  }
}

const EXPIRY_MARGIN_MS = 30_000;

export type LaunchOutcome = { kind: "ready"; client: Client } | { kind: "redirecting" } | { kind: "idle" };

function storageOf(app: AppManifest): PrefixedStorage {
  return new PrefixedStorage(`foramen.${app.client_id}.`);
}

/** 128 random bits: fhirclient's own state comes from Math.random, which RFC 6749 §10.10 does not allow. */
function newState(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function fhirBase(): string {
  return `${location.origin}/fhir`;
}

/** fhirclient takes `iss` and others from the address before its own arguments: nothing is left there for it. */
function forgetQuery(): void {
  history.replaceState(null, "", location.pathname);
}

/** Goes to the authorization server; the page is left when this resolves. */
export async function authorize(app: AppManifest, launch?: string): Promise<void> {
  storageOf(app).clear();
  forgetQuery();
  const smart = new AppAdapter(storageOf(app)).getSmartApi();
  await smart.authorize({
    clientId: app.client_id,
    scope: app.scope,
    iss: fhirBase(),
    redirectUri: location.origin + app.redirect_path,
    pkceMode: "required",
    completeInTarget: true,
    stateKey: newState(),
    ...(launch ? { launch } : {}),
  });
}

/** Whether the page can become a session without leaving it: an answer in the address, or a token kept in this tab. */
export function mayBeSignedIn(app: AppManifest): boolean {
  return new URLSearchParams(location.search).has("code") || storageOf(app).has("SMART_KEY");
}

/** Takes one step of the launch, whichever the address of the page asks for. */
export async function launchStep(app: AppManifest): Promise<LaunchOutcome> {
  const query = new URLSearchParams(location.search);
  const launch = query.get("launch");
  if (launch) {
    const iss = (query.get("iss") ?? "").replace(/\/$/, "");
    // A foreign issuer would receive our authorization request and answer for our patient (SMART App Launch, "mix-up").
    if (iss !== fhirBase()) throw new Error(`Unknown FHIR server: ${iss}`);
    await authorize(app, launch);
    return { kind: "redirecting" };
  }
  const storage = storageOf(app);
  if (query.has("code") || query.has("error") || storage.has("SMART_KEY")) {
    // RFC 9207: an answer that another authorization server gave is not taken.
    const issuer = query.get("iss");
    if (issuer !== null && issuer !== location.origin) throw new Error(`Unknown authorization server: ${issuer}`);
    const client = await new AppAdapter(storage).getSmartApi().ready();
    forgetQuery();
    if (!(await isAlive(client))) {
      storage.clear();
      return { kind: "idle" };
    }
    return { kind: "ready", client };
  }
  return { kind: "idle" };
}

/** Whether the kept token still works; one that has run out is refreshed while the sign-in session lives. */
async function isAlive(client: Client): Promise<boolean> {
  if (!client.state.tokenResponse?.access_token) return false;
  if ((client.state.expiresAt ?? Infinity) * 1000 > Date.now() + EXPIRY_MARGIN_MS) return true;
  if (!client.state.tokenResponse.refresh_token) return false;
  return client.refresh().then(
    () => true,
    () => false,
  );
}

export function forget(app: AppManifest): void {
  storageOf(app).clear();
}
