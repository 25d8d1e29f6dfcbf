/** First screen after sign-in: worklist on the left, patients on the right. */
import { LogoutOutlined } from "@ant-design/icons";
import { AppFrame } from "@client/components/AppFrame";
import { type AppName, requestLaunch } from "@client/ehr_launch";
import { messageOf } from "@client/fhir_error";
import { maySearch } from "@client/scopes";
import type { Session } from "@client/session";
import { App, Button, Spin } from "antd";
import { useCallback, useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { signOut } from "../sign_out";
import { NoRecord } from "./NoRecord";
import { PatientPanel } from "./PatientPanel";
import { WorkPanel } from "./WorkPanel";

export type Open = (app: AppName, patientId: string) => void;

export function Home({ session }: { session: Session }) {
  const { t } = useTranslation();
  const { message } = App.useApp();
  const [opening, setOpening] = useState(false);
  const [synthetic, setSynthetic] = useState(false);

  const open = useCallback<Open>(
    (app, patientId) => {
      setOpening(true);
      requestLaunch(session, app, patientId).then(
        (url) => location.assign(url),
        (error: unknown) => {
          setOpening(false);
          void message.error(messageOf(error), 8);
        },
      );
    },
    [session, message],
  );

  useEffect(() => {
    // A page restored by the browser's Back button would otherwise stay covered.
    const restored = () => setOpening(false);
    addEventListener("pageshow", restored);
    return () => removeEventListener("pageshow", restored);
  }, []);

  const leave = () => signOut(session).catch((error: unknown) => void message.error(messageOf(error), 8));
  const may = (type: string) => maySearch(session.scope, type);
  return (
    <AppFrame
      title={t("portal.title")}
      synthetic={synthetic}
      userName={session.user.name}
      actions={
        <>
          {may("ImagingStudy") ? (
            <Button type="text" className="header-button" href="/apps/images/" data-testid="image-database">
              {t("portal.imageDatabase")}
            </Button>
          ) : null}
          <Button type="text" className="header-button" icon={<LogoutOutlined aria-hidden />} onClick={() => void leave()} data-testid="sign-out">
            {t("action.signOut")}
          </Button>
        </>
      }
    >
      <Spin spinning={opening} description={t("portal.opening")} size="large" fullscreen />
      {may("Task") || may("Patient") ? (
        <div className="portal-grid">
          <WorkPanel session={session} open={open} onSynthetic={setSynthetic} />
          <PatientPanel session={session} open={open} />
        </div>
      ) : (
        <NoRecord scope={session.scope} />
      )}
    </AppFrame>
  );
}
