/** Stage 8, decide: compare the options, choose one, edit it, keep the reason. */
import { bootApp, Notice } from "@client/boot";
import { Button } from "antd";
import i18next from "i18next";
import manifest from "./app.json";
import { Planning } from "./views/Planning";

void bootApp({
  app: manifest,
  title: () => i18next.t("plan.title"),
  screen: (session) => <Planning session={session} />,
  idle: () => (
    <Notice
      title={i18next.t("plan.title")}
      text={i18next.t("frame.openFromPortal")}
      extra={
        <Button type="primary" href="/">
          {i18next.t("action.toPortal")}
        </Button>
      }
    />
  ),
});
