/** Starts an app: language, SMART launch, session, then the screen. Every failure ends in readable text. */
import { MutationCache, QueryCache, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { App as AntApp, Button, ConfigProvider, Result, Spin } from "antd";
import enUS from "antd/es/locale/en_US";
import zhCN from "antd/es/locale/zh_CN";
import { type ReactNode, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { useTranslation } from "react-i18next";
import { AppFrame } from "./components/AppFrame";
import { FhirError, messageOf } from "./fhir_error";
import { initLanguage } from "./i18n";
import { launchStep } from "./launch";
import { type AppManifest, openSession, type Session } from "./session";
import { LIGHT } from "./theme";
import "./app.css";

type State = { kind: "starting" } | { kind: "idle" } | { kind: "ready"; session: Session } | { kind: "failed"; error: unknown };

interface Boot {
  app: AppManifest;
  title: () => string;
  screen: (session: Session) => ReactNode;
  /** What to show when nobody has launched the app and nobody is signed in. */
  idle: () => ReactNode;
}

async function start(app: AppManifest): Promise<State> {
  try {
    const outcome = await launchStep(app);
    if (outcome.kind === "ready") return { kind: "ready", session: await openSession(app, outcome.client) };
    return { kind: outcome.kind === "redirecting" ? "starting" : "idle" };
  } catch (error) {
    return { kind: "failed", error };
  }
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

function Root({ boot, first }: { boot: Boot; first: State }) {
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
  else if (first.kind === "failed") content = <Notice title={boot.title()} text={messageOf(first.error)} extra={home} failed />;
  else content = <Starting title={boot.title()} />;
  return (
    <ConfigProvider theme={LIGHT} locale={chinese ? zhCN : enUS} button={{ autoInsertSpace: false }}>
      <AntApp component={false}>
        <QueryClientProvider client={client}>{content}</QueryClientProvider>
      </AntApp>
    </ConfigProvider>
  );
}

function Starting({ title }: { title: string }) {
  const { t } = useTranslation();
  return (
    <AppFrame title={title}>
      <div className="centred">
        <Spin description={t("frame.signingIn")} size="large">
          <div style={{ width: 240, height: 120 }} />
        </Spin>
      </div>
    </AppFrame>
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

/** Boots one page; called once by each app's main.tsx. */
export async function bootApp(boot: Boot): Promise<void> {
  const root = createRoot(document.getElementById("root") as HTMLElement);
  await initLanguage();
  root.render(<Root key="starting" boot={boot} first={{ kind: "starting" }} />);
  const state = await start(boot.app);
  if (state.kind !== "starting") root.render(<Root key="started" boot={boot} first={state} />);
}
