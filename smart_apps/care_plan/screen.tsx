/** What the app shows, launched or not. */
import { Notice, showApp } from "@client/boot";
import type { Started } from "@client/start";
import { Button } from "antd";
import i18next from "i18next";
import { Planning } from "./views/Planning";

function NotLaunched() {
  return (
    <Notice
      title={i18next.t("plan.title")}
      text={i18next.t("frame.openFromPortal")}
      extra={
        <Button type="primary" href="/">
          {i18next.t("action.toPortal")}
        </Button>
      }
    />
  );
}

export function show(started: Started): void {
  const title = () => i18next.t("plan.title");
  showApp({ title, screen: (session) => <Planning session={session} />, idle: () => <NotLaunched /> }, started);
}
