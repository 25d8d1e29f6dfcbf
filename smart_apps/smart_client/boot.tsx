/** Puts an app on the screen once the launch has been walked (start.ts). Every failure ends in readable text. */
import { MutationCache, QueryCache, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { App as AntApp, Button, ConfigProvider, Result } from "antd";
import enUS from "antd/es/locale/en_US";
import zhCN from "antd/es/locale/zh_CN";
import { type ReactNode, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { useTranslation } from "react-i18next";
import { AppFrame } from "./components/AppFrame";
import { FhirError, messageOf } from "./fhir_error";
import type { Session } from "./session";
import type { Started } from "./start";
import { forTouch, LIGHT } from "./theme";
import { useTouch } from "./touch";
import "./app.css";

interface Boot {
  title: () => string;
  screen: (session: Session) => ReactNode;
  /** What to show when nobody has launched the app and nobody is signed in. */
  idle: () => ReactNode;
}

function queryClient(onExpired: () => void): QueryClient {
  const onError = (error: unknown) => {
    if (error instanceof FhirError && error.status === 401) onExpired();
  };
  const retry = (count: number, error: unknown) =>
    count < 2 && error instanceof FhirError && (error.status === 0 || error.status >= 502);
  return new QueryClient({
    queryCache: new QueryCache({ onError }),
    mutationCache: new MutationCache({ onError }),
    defaultOptions: { queries: { retry, staleTime: 5000, refetchOnWindowFocus: false }, mutations: { retry: false } },
  });
}

function Root({ boot, first }: { boot: Boot; first: Started }) {
  const { t, i18n } = useTranslation();
  const [expired, setExpired] = useState(false);
  const [client] = useState(() =>
    queryClient(() => {
      // The stale token is dropped, so that the next visit signs in again instead of failing again.
      if (first.kind === "ready") first.session.forget();
      setExpired(true);
    }),
  );
  const chinese = i18n.language !== "en-US";
  const theme = useTouch() ? forTouch(LIGHT) : LIGHT;
  useEffect(() => {
    document.title = `${boot.title()} · Foramen`;
  }, [boot, i18n.language]);
  const home = (
    <Button type="primary" href="/">
      {t("action.toPortal")}
    </Button>
  );
  let content: ReactNode;
  if (expired) content = <Notice title={boot.title()} text={t("error.expired")} extra={home} />;
  else if (first.kind === "ready") content = boot.screen(first.session);
  else if (first.kind === "idle") content = boot.idle();
  else content = <Notice title={boot.title()} text={messageOf(first.error)} extra={home} failed />;
  return (
    <ConfigProvider theme={theme} locale={chinese ? zhCN : enUS} button={{ autoInsertSpace: false }}>
      <AntApp component={false} message={{ top: 84 }}>
        <QueryClientProvider client={client}>{content}</QueryClientProvider>
      </AntApp>
    </ConfigProvider>
  );
}

export function Notice({ title, text, extra, failed }: { title: string; text: string; extra: ReactNode; failed?: boolean }) {
  const { t } = useTranslation();
  return (
    <AppFrame title={title}>
      <div className="centred">
        <Result
          status={failed ? "warning" : "info"}
          title={failed ? t("error.launch") : text}
          subTitle={failed ? text : undefined}
          extra={extra}
        />
      </div>
    </AppFrame>
  );
}

/** Shows one app; called once by each app's screen.tsx. */
export function showApp(boot: Boot, started: Started): void {
  createRoot(document.getElementById("root") as HTMLElement).render(<Root boot={boot} first={started} />);
}
