/** One AI value with everything a clinician must be able to see beside it (clinical model §9, "UI must show"). */
import { CheckCircleFilled, EditFilled, QuestionCircleOutlined, RobotOutlined } from "@ant-design/icons";
import { Popover } from "antd";
import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { dateTime, percent } from "../format";
import { statusWord } from "./StatusTag";

export interface AiValueDetails {
  name: string;
  value: string;
  unit?: string | undefined;
  /** Share from 0 to 1; undefined is shown as "uncertain". */
  confidence?: number | undefined;
  uncertainty?: string | undefined;
  model?: string | undefined;
  time?: string | undefined;
  source?: string | undefined;
  method?: string | undefined;
  status: string;
  verifiedBy?: string | undefined;
  /** Why there is no value; shown instead of it, and never as "normal". */
  absentReason?: string | undefined;
  /** A person set this value: the model's confidence no longer applies. */
  byPerson?: boolean;
  /** Attention is asked for: anything but normal. */
  notable?: boolean;
}

function StateIcon({ status }: { status: string }) {
  if (status === "final") return <CheckCircleFilled className="ok" aria-hidden />;
  if (status === "amended" || status === "corrected") return <EditFilled className="edited" aria-hidden />;
  return <RobotOutlined className="ai" aria-hidden />;
}

/** Below this the number is said to be low in words (POLICY: more likely wrong than right). */
const LOW_CONFIDENCE = 0.5;

function confidenceText(t: ReturnType<typeof useTranslation>["t"], details: AiValueDetails): string {
  if (details.byPerson) return t("ai.byPerson");
  if (details.confidence !== undefined) {
    return details.confidence < LOW_CONFIDENCE ? `${percent(details.confidence)} ${t("ai.low")}` : percent(details.confidence);
  }
  return details.uncertainty ?? t("ai.uncertain");
}

export function AiValue({ details }: { details: AiValueDetails }) {
  const { t } = useTranslation();
  const absent = details.absentReason !== undefined;
  const confidence = confidenceText(t, details);
  const rows: [string, ReactNode][] = [
    [t("ai.value"), absent ? `${t("ai.cannotAssess")}: ${details.absentReason}` : `${details.value} ${details.unit ?? ""}`],
    [t("ai.confidence"), absent ? "–" : details.confidence === undefined && !details.byPerson ? t("ai.uncertain") : confidence],
    [t("ai.uncertainty"), details.uncertainty],
    [t("ai.status"), statusWord(t, details.status)],
    [t("ai.verifiedBy"), details.verifiedBy ?? t("ai.nobody")],
    [t("ai.model"), details.model],
    [t("ai.time"), dateTime(details.time)],
    [t("ai.source"), details.source],
    [t("ai.method"), details.method],
  ];
  const content = (
    <dl className="ai-details">
      {rows.map(([label, value]) =>
        value ? (
          <div key={label}>
            <dt>{label}</dt>
            <dd>{value}</dd>
          </div>
        ) : null,
      )}
    </dl>
  );
  const summary = absent ? `${details.name} ${t("ai.cannotAssess")}` : `${details.name} ${details.value} ${details.unit ?? ""}`;
  return (
    <Popover content={content} title={details.name} trigger={["hover", "focus"]} mouseEnterDelay={0.6} placement="left">
      <span
        className={`ai-value${absent ? " absent" : ""}${details.notable ? " notable" : ""}`}
        tabIndex={0}
        role="note"
        aria-label={[summary, absent ? undefined : confidence, statusWord(t, details.status)].filter(Boolean).join(", ")}
      >
        {absent ? (
          <span className="ai-absent">
            <QuestionCircleOutlined aria-hidden /> {t("ai.cannotAssess")}: {details.absentReason}
          </span>
        ) : (
          <>
            <span className="ai-number">
              {details.value}
              {details.unit ? <small> {details.unit}</small> : null}
            </span>
            <small className="ai-confidence">
              <StateIcon status={details.status} /> {confidence}
            </small>
          </>
        )}
      </span>
    </Popover>
  );
}
