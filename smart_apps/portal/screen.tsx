/** What the portal shows, signed in or not. */
import { Notice, showApp } from "@client/boot";
import { authorize } from "@client/launch";
import type { Started } from "@client/start";
import { Button } from "antd";
import i18next from "i18next";
import manifest from "./app.json";
import { Home } from "./views/Home";

function SignIn() {
  return (
    <Notice
      title={i18next.t("portal.title")}
      text={i18next.t("portal.signedOut")}
      extra={
        <Button type="primary" size="large" data-testid="sign-in" onClick={() => void authorize(manifest)}>
          {i18next.t("portal.signIn")}
        </Button>
      }
    />
  );
}

export function show(started: Started): void {
  const title = () => i18next.t("portal.title");
  showApp({ title, screen: (session) => <Home session={session} />, idle: () => <SignIn /> }, started);
}
