/** The review screen: images on the left, findings, report and decision on the right. */
import { ArrowLeftOutlined } from "@ant-design/icons";
import { AppFrame } from "@client/components/AppFrame";
import { PatientBanner } from "@client/components/PatientBanner";
import { Nothing, Problem } from "@client/components/Problem";
import { RecalledBanner } from "@client/components/RecalledBanner";
import { newestOpen } from "@client/reports";
import { isRecalled, isSynthetic, isSyntheticPatient } from "@client/resource";
import type { Session } from "@client/session";
import { useQuery } from "@tanstack/react-query";
import { Button, Skeleton } from "antd";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { loadRecord, loadReports } from "../record";
import { ReviewWorkspace } from "./ReviewWorkspace";

export function Review({ session }: { session: Session }) {
  const { t } = useTranslation();
  const [chosen, setChosen] = useState<string>();
  const patientId = session.patientId;
  const patient = useQuery({
    queryKey: ["patient", patientId],
    queryFn: () => session.fhir.read("Patient", patientId ?? ""),
    enabled: patientId !== undefined,
  });
  const reports = useQuery({
    queryKey: ["reports", patientId],
    queryFn: () => loadReports(session, patientId ?? ""),
    enabled: patientId !== undefined,
  });
  const newest = newestOpen(reports.data ?? []) ?? reports.data?.[0];
  const reportId = chosen ?? newest?.id;
  const record = useQuery({
    queryKey: ["record", patientId, reportId],
    queryFn: () => loadRecord(session, patientId ?? "", reportId ?? ""),
    enabled: patientId !== undefined && reportId !== undefined,
  });
  const synthetic = isSyntheticPatient(patient.data) || isSynthetic(record.data?.report) || isSynthetic(record.data?.study);
  const error = patient.error ?? reports.error ?? record.error;
  const retry = () => void Promise.all([patient.refetch(), reports.refetch(), record.refetch()]);
  return (
    <AppFrame
      title={t("review.title")}
      synthetic={synthetic}
      warning={isRecalled(record.data?.report) ? <RecalledBanner session={session} reference={`DiagnosticReport/${record.data?.report.id}`} /> : null}
      patient={<PatientBanner patient={patient.data} />}
      userName={session.user.name}
      actions={
        <Button type="text" className="header-button" icon={<ArrowLeftOutlined aria-hidden />} href="/">
          {t("action.toPortal")}
        </Button>
      }
    >
      {patientId === undefined ? <Problem error={new Error(t("frame.noPatient"))} /> : null}
      {error && !record.data ? <Problem error={error} onRetry={retry} /> : null}
      {reports.data?.length === 0 ? (
        <div className="centred">
          <Nothing>{t("review.noReport")}</Nothing>
        </div>
      ) : null}
      {record.data && patient.data ? (
        <ReviewWorkspace
          session={session}
          patient={patient.data}
          record={record.data}
          reports={reports.data ?? []}
          onChoose={setChosen}
          onDecided={retry}
        />
      ) : null}
      {!record.data && !error && reports.data?.length !== 0 ? <Waiting /> : null}
    </AppFrame>
  );
}

function Waiting() {
  return (
    <div className="review-grid" aria-busy="true">
      <div className="image-area" />
      <div className="side">
        <Skeleton active paragraph={{ rows: 8 }} />
        <Skeleton active paragraph={{ rows: 4 }} />
      </div>
    </div>
  );
}
