/** Ends the session here and at the authorization server. OpenID Connect RP-Initiated Logout 1.0 */
import { reach } from "@client/fhir_error";
import type { Session } from "@client/session";

/** `state` of the logout request: the server gives it back, so that the portal does not sign in again at once. */
const MARK = "signed-out";

export function wasSignedOut(): boolean {
  return new URLSearchParams(location.search).get("state") === MARK;
}

export async function signOut(session: Session): Promise<void> {
  const response = await reach("/.well-known/openid-configuration", { headers: { Accept: "application/json" } });
  const { end_session_endpoint: endSession } = (await response.json()) as { end_session_endpoint?: string };
  const idToken = session.idToken;
  sessionStorage.clear();
  const back = `${location.origin}/`;
  if (!endSession) {
    location.assign(`${back}?state=${MARK}`);
    return;
  }
  const url = new URL(endSession);
  if (idToken) url.searchParams.set("id_token_hint", idToken);
  url.searchParams.set("client_id", session.app.client_id);
  url.searchParams.set("post_logout_redirect_uri", back);
  url.searchParams.set("state", MARK);
  location.assign(url.href);
}
