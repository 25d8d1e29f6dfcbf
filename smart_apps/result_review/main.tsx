/** Stage 7, review, and stage 8, decide: one AI report beside the images it was made from. */
import { bootApp, Notice } from "@client/boot";
import { Button } from "antd";
import i18next from "i18next";
import manifest from "./app.json";
import { Review } from "./views/Review";

void bootApp({
  app: manifest,
  title: () => i18next.t("review.title"),
  screen: (session) => <Review session={session} />,
  idle: () => (
    <Notice
      title={i18next.t("review.title")}
      text={i18next.t("frame.openFromPortal")}
      extra={
        <Button type="primary" href="/">
          {i18next.t("action.toPortal")}
        </Button>
      }
    />
  ),
});
