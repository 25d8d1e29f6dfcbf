/** The portal: sign in, patients, the worklist of AI tasks, launch of the other apps. */
import { bootApp, Notice } from "@client/boot";
import { authorize } from "@client/launch";
import { Button } from "antd";
import i18next from "i18next";
import manifest from "./app.json";
import { wasSignedOut } from "./sign_out";
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

function Redirect() {
  void authorize(manifest);
  return null;
}

void bootApp({
  app: manifest,
  title: () => i18next.t("portal.title"),
  screen: (session) => <Home session={session} />,
  idle: () => (wasSignedOut() ? <SignIn /> : <Redirect />),
});
