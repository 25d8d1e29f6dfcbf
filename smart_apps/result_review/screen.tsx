/** What the app shows, launched or not. */
import { showApp } from "@client/boot";
import { NotLaunched } from "@client/components/NotLaunched";
import type { Started } from "@client/start";
import i18next from "i18next";
import { Review } from "./views/Review";

export function show(started: Started): void {
  const title = () => i18next.t("review.title");
  showApp({ title, screen: (session) => <Review session={session} />, idle: () => <NotLaunched title={title()} /> }, started);
}
