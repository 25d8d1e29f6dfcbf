/** Report, findings and decision. */
import { SolutionOutlined } from "@ant-design/icons";
import { OpenAppButton } from "@client/components/OpenAppButton";
import { StatusTag, statusWord } from "@client/components/StatusTag";
import { dateOnly, dateTime } from "@client/format";
import { newestOpen } from "@client/reports";
import { isAiGenerated } from "@client/resource";
import type { Session } from "@client/session";
import { Alert, Select, Tag } from "antd";
import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { generalFindings, type LevelRow, numberingConfident } from "../findings";
import { modelOf, modelText, type ReportRecord, sourceText, type Verification, verificationsOf } from "../record";
import { conclusionText } from "../wording";
import { DecisionBar } from "./DecisionBar";
import { FindingsTable } from "./FindingsTable";
import { KeyImages } from "./KeyImages";
import type { Focus } from "./ReviewWorkspace";

interface SidePanelProps {
  session: Session;
  patient: fhir4.Patient;
  record: ReportRecord;
  reports: fhir4.DiagnosticReport[];
  rows: LevelRow[];
  focus: Focus | undefined;
  onFocus: (level: string) => void;
  onChoose: (reportId: string) => void;
  onDecided: () => void;
}

export function SidePanel(props: SidePanelProps) {
  const { session, patient, record, reports, rows, focus, onFocus, onChoose } = props;
  const { t } = useTranslation();
  const verifications = useMemo(() => verificationsOf(record.provenance), [record.provenance]);
  const latest = verifications[0];
  const context = {
    model: (observation: fhir4.Observation) => modelOf(record.devices, observation),
    source: sourceText(record),
    verifiedBy: latest ? `${latest.who} ${dateTime(latest.when)}` : undefined,
  };
  const { report } = record;
  return (
    <aside className="side">
      <div className="side-scroll">
        <section className="report-head">
          <div className="report-line">
            <StatusTag status={report.status} testId="report-status" />
            {isAiGenerated(report) ? <Tag color="purple">{t("ai.generated")}</Tag> : null}
            <span className="spacer" />
            <OpenAppButton session={session} app="care-plan" patientId={patient.id ?? ""} icon={<SolutionOutlined aria-hidden />} testId="open-plan">
              {t("review.toPlan")}
            </OpenAppButton>
          </div>
          {reports.length > 1 ? <ReportChooser reports={reports} value={report.id} onChoose={onChoose} /> : null}
          <dl className="facts">
            <Fact label={t("ai.model")} value={record.devices.flatMap((device) => modelText(device) ?? []).join("; ")} />
            <Fact label={t("ai.time")} value={dateTime(report.issued)} />
            <Fact label={t("ai.source")} value={context.source} />
            <Fact label={t("review.study")} value={[record.study?.description, dateTime(record.study?.started)].filter(Boolean).join(" · ")} />
          </dl>
        </section>
        {numberingConfident(record.observations) === false ? <Alert type="error" showIcon title={t("review.numberingUnsure")} /> : null}
        <section>
          <h2>{t("review.findings")}</h2>
          {rows.length === 0 ? (
            <p className="muted">{t("review.noFindings")}</p>
          ) : (
            <FindingsTable
              rows={rows}
              general={generalFindings(record.observations)}
              context={context}
              focus={focus?.level}
              onFocus={onFocus}
            />
          )}
        </section>
        {record.studyInstanceUid && record.keyImageSeriesUid ? (
          <KeyImages session={session} study={record.studyInstanceUid} series={record.keyImageSeriesUid} />
        ) : null}
        <section>
          <h2>{t(report.status === "amended" || report.status === "corrected" ? "review.reportAmended" : "review.report")}</h2>
          <p className="conclusion" data-testid="conclusion">
            {report.conclusion ? conclusionText(report.conclusion) : t("review.noConclusion")}
          </p>
        </section>
        <Decisions verifications={verifications} />
      </div>
      <DecisionBar {...props} />
    </aside>
  );
}

function Fact({ label, value }: { label: string; value: string | undefined }) {
  return value ? (
    <div>
      <dt>{label}</dt>
      <dd>{value}</dd>
    </div>
  ) : null;
}

function ReportChooser({ reports, value, onChoose }: { reports: fhir4.DiagnosticReport[]; value: string | undefined; onChoose: (id: string) => void }) {
  const { t } = useTranslation();
  const newest = newestOpen(reports);
  const options = reports.map((report) => ({
    value: report.id ?? "",
    label: [
      report.effectiveDateTime ? t("review.examined", { date: dateOnly(report.effectiveDateTime) }) : "",
      report.issued ? t("review.analysed", { time: dateTime(report.issued) }) : "",
      statusWord(t, report.status),
      report === newest ? t("review.newest") : "",
    ]
      .filter(Boolean)
      .join(" · "),
  }));
  return (
    <Select
      size="small"
      className="report-chooser"
      options={options}
      {...(value ? { value } : {})}
      onChange={onChoose}
      aria-label={t("review.chooseReport")}
      data-testid="report-chooser"
    />
  );
}

function Decisions({ verifications }: { verifications: Verification[] }) {
  const { t } = useTranslation();
  if (verifications.length === 0) return null;
  return (
    <section data-testid="decisions">
      <h2>{t("review.decisions")}</h2>
      <ul className="decisions">
        {verifications.map((item) => (
          <li key={item.when + item.kind}>
            <strong>{t(`review.kindWord.${item.kind}` as "review.kindWord.verify", { defaultValue: item.kind })}</strong> {item.who} ·{" "}
            {dateTime(item.when)}
            {item.reason ? <div className="muted">{item.reason}</div> : null}
          </li>
        ))}
      </ul>
    </section>
  );
}
