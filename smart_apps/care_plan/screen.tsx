/** What the app shows, launched or not. */
import { showApp } from "@client/boot";
import { NotLaunched } from "@client/components/NotLaunched";
import type { Started } from "@client/start";
import i18next from "i18next";
import { Planning } from "./views/Planning";

export function show(started: Started): void {
  const title = () => i18next.t("plan.title");
  showApp({ title, screen: (session) => <Planning session={session} />, idle: () => <NotLaunched title={title()} /> }, started);
}
