/** Opens another app for the same patient, by EHR launch: no second sign-in, no second choice of patient. */
import { App, Button } from "antd";
import { type ReactNode, useState } from "react";
import { type AppName, requestLaunch } from "../ehr_launch";
import { messageOf } from "../fhir_error";
import type { Session } from "../session";

interface OpenAppProps {
  session: Session;
  app: AppName;
  patientId: string;
  icon: ReactNode;
  testId: string;
  children: ReactNode;
}

export function OpenAppButton({ session, app, patientId, icon, testId, children }: OpenAppProps) {
  const { message } = App.useApp();
  const [opening, setOpening] = useState(false);
  const open = () => {
    setOpening(true);
    requestLaunch(session, app, patientId).then(
      (url) => location.assign(url),
      (error: unknown) => {
        setOpening(false);
        void message.error(messageOf(error), 8);
      },
    );
  };
  return (
    <Button size="small" icon={icon} loading={opening} onClick={open} data-testid={testId}>
      {children}
    </Button>
  );
}
