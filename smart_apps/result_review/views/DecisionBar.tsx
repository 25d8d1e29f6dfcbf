/** Verify, amend, reject. Each opens a dialogue; nothing is written by a single click. */
import { CheckOutlined, CloseOutlined, EditOutlined } from "@ant-design/icons";
import type { Session } from "@client/session";
import { FhirError, messageOf } from "@client/fhir_error";
import { isRecalled } from "@client/resource";
import { useMutation } from "@tanstack/react-query";
import { Alert, App, Button, Space } from "antd";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { type DecisionKind, decisionBundle } from "../decision";
import type { ReportRecord } from "../record";
import { DecisionDialog, type DecisionInput } from "./DecisionDialog";

interface DecisionBarProps {
  session: Session;
  patient: fhir4.Patient;
  record: ReportRecord;
  onDecided: () => void;
}

const CHANGED = [409, 412];

export function DecisionBar({ session, patient, record, onDecided }: DecisionBarProps) {
  const { t } = useTranslation();
  const { message } = App.useApp();
  const [kind, setKind] = useState<DecisionKind>();
  const { user } = session;
  const { status } = record.report;
  const decide = useMutation({
    mutationFn: (input: DecisionInput) =>
      session.fhir.transaction(
        decisionBundle({
          ...input,
          report: record.report,
          observations: record.observations,
          practitioner: { reference: user.reference ?? "", display: user.name },
          recorded: new Date().toISOString(),
        }),
      ),
    onSuccess: (_, input) => {
      setKind(undefined);
      void message.success(t(`review.done.${input.kind}`));
      onDecided();
    },
    onError: (error) => {
      if (error instanceof FhirError && CHANGED.includes(error.status)) {
        setKind(undefined);
        void message.warning(t("review.changedMeanwhile"), 10);
        onDecided();
        return;
      }
      void message.error(messageOf(error), 10);
    },
  });

  if (status === "entered-in-error") {
    return (
      <div className="decision-bar">
        <Alert type="error" showIcon title={t("review.rejectedNote")} />
      </div>
    );
  }
  if (status === "cancelled") {
    return (
      <div className="decision-bar">
        {isRecalled(record.report) ? (
          <Alert type="error" showIcon title={t("review.recalledNote")} data-testid="recalled" />
        ) : (
          <Alert type="info" showIcon title={t("review.supersededNote")} data-testid="superseded" />
        )}
      </div>
    );
  }
  const settled = ["final", "amended", "corrected", "appended"].includes(status);
  const mayDecide = user.reference !== undefined;
  return (
    <div className="decision-bar">
      {mayDecide ? null : <Alert type="info" showIcon title={t("review.notAPractitioner")} />}
      <p className={settled ? "settled" : "unsettled"}>{settled ? t("review.settled") : t("review.unsettled")}</p>
      <Space>
        {settled ? null : (
          <Button type="primary" icon={<CheckOutlined aria-hidden />} disabled={!mayDecide} onClick={() => setKind("verify")} data-testid="verify">
            {t("review.verify")}
          </Button>
        )}
        <Button icon={<EditOutlined aria-hidden />} disabled={!mayDecide} onClick={() => setKind("amend")} data-testid="amend">
          {t("review.amend")}
        </Button>
        <Button danger icon={<CloseOutlined aria-hidden />} disabled={!mayDecide} onClick={() => setKind("reject")} data-testid="reject">
          {t("review.reject")}
        </Button>
      </Space>
      {kind ? (
        <DecisionDialog
          kind={kind}
          patient={patient}
          record={record}
          busy={decide.isPending}
          onCancel={() => setKind(undefined)}
          onDecide={(input) => decide.mutate(input)}
        />
      ) : null}
    </div>
  );
}
