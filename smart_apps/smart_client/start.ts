/**
 * First code of every page: language, SMART launch, session. The components come after it, so that a page that only
 * redirects (sign-in, EHR launch) does not load them.
 */
import { initLanguage } from "./i18n";
import { authorize, launchStep, mayBeSignedIn } from "./launch";
import { type AppManifest, openSession, type Session } from "./session";

export type Started = { kind: "idle" } | { kind: "ready"; session: Session } | { kind: "failed"; error: unknown };

export interface Screen {
  show: (started: Started) => void;
}

interface StartOptions {
  app: AppManifest;
  screen: () => Promise<Screen>;
  /** Whether a visitor without a session goes to sign in at once. */
  signInAtOnce: () => boolean;
}

async function walk({ app, signInAtOnce }: StartOptions): Promise<Started | "leaving"> {
  try {
    const outcome = await launchStep(app);
    if (outcome.kind === "ready") return { kind: "ready", session: await openSession(app, outcome.client) };
    if (outcome.kind === "redirecting") return "leaving";
    if (!signInAtOnce()) return { kind: "idle" };
    await authorize(app);
    return "leaving";
  } catch (error) {
    return { kind: "failed", error };
  }
}

/** Starts one page; called once by each app's main.ts. */
export async function startApp(options: StartOptions): Promise<void> {
  await initLanguage();
  const early = mayBeSignedIn(options.app) ? options.screen() : undefined;
  const started = await walk(options);
  if (started === "leaving") return;
  const screen = await (early ?? options.screen());
  screen.show(started);
}
