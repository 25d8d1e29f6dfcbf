/** The care plan screen: clinical inputs on the left, chosen plan and options on the right. */
import { ArrowLeftOutlined, FileSearchOutlined } from "@ant-design/icons";
import { AppFrame } from "@client/components/AppFrame";
import { OpenAppButton } from "@client/components/OpenAppButton";
import { PatientBanner } from "@client/components/PatientBanner";
import { Problem } from "@client/components/Problem";
import { RecalledBanner } from "@client/components/RecalledBanner";
import { isRecalled, isSynthetic, isSyntheticPatient } from "@client/resource";
import type { Session } from "@client/session";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Button, Skeleton } from "antd";
import { useEffect, useRef } from "react";
import { useTranslation } from "react-i18next";
import { isRunning, loadInputs, loadPlans, loadRecommendation, loadRecommendTask } from "../record";
import { InputPanel } from "./InputPanel";
import { OptionBoard } from "./OptionBoard";

const POLL_MS = 1000;

export function Planning({ session }: { session: Session }) {
  const { t } = useTranslation();
  const { patientId } = session;
  return (
    <>
      {patientId === undefined ? (
        <AppFrame title={t("plan.title")}>
          <Problem error={new Error(t("frame.noPatient"))} />
        </AppFrame>
      ) : (
        <PatientPlanning session={session} patientId={patientId} />
      )}
    </>
  );
}

function PatientPlanning({ session, patientId }: { session: Session; patientId: string }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const patient = useQuery({ queryKey: ["patient", patientId], queryFn: () => session.fhir.read("Patient", patientId) });
  const recommendation = useQuery({ queryKey: ["recommendation"], queryFn: () => loadRecommendation(session, patientId) });
  const plans = useQuery({ queryKey: ["plans"], queryFn: () => loadPlans(session, patientId) });
  const inputs = useQuery({ queryKey: ["inputs"], queryFn: () => loadInputs(session, patientId) });
  const task = useQuery({
    queryKey: ["recommend-task"],
    queryFn: () => loadRecommendTask(session, patientId),
    refetchInterval: (query) => (isRunning(query.state.data) ? POLL_MS : false),
  });
  // Until it is known whether fresh options are on their way, none may be chosen: signing a report asks for them too.
  const running = task.isPending || isRunning(task.data);
  const wasRunning = useRef(false);
  useEffect(() => {
    if (wasRunning.current && !running) void client.invalidateQueries({ queryKey: ["recommendation"] });
    wasRunning.current = running;
  }, [running, client]);
  const refresh = () => void client.invalidateQueries();

  const error = patient.error ?? recommendation.error ?? plans.error ?? inputs.error;
  const loaded = patient.data && recommendation.data && plans.data && inputs.data !== undefined;
  const synthetic = isSyntheticPatient(patient.data) || isSynthetic(recommendation.data?.group) || isSynthetic(recommendation.data?.report);
  const recalled = [recommendation.data?.group, recommendation.data?.report].find(isRecalled);
  return (
    <AppFrame
      title={t("plan.title")}
      synthetic={synthetic}
      warning={recalled ? <RecalledBanner session={session} reference={`${recalled.resourceType}/${recalled.id}`} /> : null}
      patient={<PatientBanner patient={patient.data} />}
      userName={session.user.name}
      actions={
        <>
          <OpenAppButton session={session} app="result-review" patientId={patientId} icon={<FileSearchOutlined aria-hidden />} testId="open-review">
            {t("portal.review")}
          </OpenAppButton>
          <Button type="text" className="header-button" icon={<ArrowLeftOutlined aria-hidden />} href="/">
            {t("action.toPortal")}
          </Button>
        </>
      }
    >
      {error && !loaded ? <Problem error={error} onRetry={refresh} /> : null}
      {loaded ? (
        <div className="plan-grid">
          <InputPanel
            key={inputs.data?.id ?? "none"}
            session={session}
            patientId={patientId}
            saved={inputs.data}
            recommendation={recommendation.data}
            task={task.data ?? null}
            onSaved={refresh}
          />
          <OptionBoard
            session={session}
            patient={patient.data}
            recommendation={recommendation.data}
            history={plans.data}
            inputs={inputs.data}
            running={running}
            onDecided={refresh}
          />
        </div>
      ) : null}
      {!loaded && !error ? (
        <div className="plan-grid" aria-busy="true">
          <div className="input-panel">
            <Skeleton active paragraph={{ rows: 10 }} />
          </div>
          <div className="option-board">
            <Skeleton active paragraph={{ rows: 6 }} />
            <Skeleton active paragraph={{ rows: 6 }} />
          </div>
        </div>
      ) : null}
    </AppFrame>
  );
}
