/** The plan that a person chose, who and when, its history, and the way back. */
import { HistoryOutlined, UndoOutlined } from "@ant-design/icons";
import { StatusTag } from "@client/components/StatusTag";
import { OPTIONS, SYSTEM } from "@client/codes";
import { FhirError, messageOf } from "@client/fhir_error";
import { dateTime } from "@client/format";
import { displayOf, isChinese } from "@client/i18n";
import { codeOf, extensionsOf } from "@client/resource";
import type { Session } from "@client/session";
import { useMutation } from "@tanstack/react-query";
import { App, Button, Form, Input, Modal } from "antd";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { SIDES } from "../clinical_input";
import { revocationBundle } from "../decision";
import { actsOn, type PlanHistory } from "../record";

interface ChosenProps {
  session: Session;
  history: PlanHistory;
  onDecided: () => void;
}

export function ChosenPlan({ session, history, onDecided }: ChosenProps) {
  const { t } = useTranslation();
  const [undoing, setUndoing] = useState(false);
  const current = history.plans.find((plan) => plan.status === "active");
  const others = history.plans.filter((plan) => plan !== current);
  if (history.plans.length === 0) return null;
  return (
    <section className={`chosen-plan${current ? "" : " none"}`} data-testid={current ? "chosen-plan" : "no-chosen-plan"}>
      {current ? (
        <>
          <header>
            <h2>{t("plan.chosen")}</h2>
            <StatusTag status={current.status} />
            <span className="spacer" />
            <Button size="small" icon={<UndoOutlined aria-hidden />} disabled={!session.user.reference} onClick={() => setUndoing(true)} data-testid="revoke-plan">
              {t("plan.revoke")}
            </Button>
          </header>
          <PlanLine plan={current} />
          {current.description ? <p className="option-description">{current.description}</p> : null}
          {current.note?.map((note) => (
            <p key={note.text} className="plan-note">
              {t("plan.field.note")}: {note.text}
            </p>
          ))}
          <Acts plan={current} history={history} />
        </>
      ) : (
        <p className="muted">{t("plan.noneActive")}</p>
      )}
      {others.length > 0 ? (
        <details>
          <summary>
            <HistoryOutlined aria-hidden /> {t("plan.history", { count: others.length })}
          </summary>
          {others.map((plan) => (
            <div key={plan.id} className="past-plan">
              <StatusTag status={plan.status} /> <PlanLine plan={plan} />
              <Acts plan={plan} history={history} />
            </div>
          ))}
        </details>
      ) : null}
      {undoing && current ? (
        <RevokeDialog session={session} plan={current} onClose={() => setUndoing(false)} onDecided={onDecided} />
      ) : null}
    </section>
  );
}

function PlanLine({ plan }: { plan: fhir4.CarePlan }) {
  const level = extensionsOf(plan, SYSTEM.EXTENSION_PLAN_LEVEL)[0]?.valueCoding?.code;
  const side = extensionsOf(plan, SYSTEM.EXTENSION_PLAN_SIDE)[0]?.valueCode;
  const option = plan.category?.map((category) => codeOf(category, SYSTEM.OPTION)).find((code) => code !== undefined);
  const sideWord = side ? (isChinese() ? SIDES[side]?.zh : SIDES[side]?.display) : undefined;
  const name = option ? displayOf(OPTIONS, option) : undefined;
  return (
    <div className="plan-line">
      <strong>{plan.title}</strong>
      {option ? (
        <span>
          <span className="option-code">{option}</span> {name === plan.title ? null : name}
        </span>
      ) : null}
      <span className="plan-place">{[level, sideWord].filter(Boolean).join(" · ")}</span>
    </div>
  );
}

function Acts({ plan, history }: { plan: fhir4.CarePlan; history: PlanHistory }) {
  const { t } = useTranslation();
  return (
    <ul className="decisions">
      {actsOn(plan, history.provenance).map((act) => (
        <li key={act.when + act.kind}>
          {t(`plan.act.${act.kind}` as "plan.act.choose", { defaultValue: act.kind })} · {act.who} · {dateTime(act.when)}
          {act.reason ? <span className="muted"> — {act.reason}</span> : null}
        </li>
      ))}
    </ul>
  );
}

interface RevokeProps {
  session: Session;
  plan: fhir4.CarePlan;
  onClose: () => void;
  onDecided: () => void;
}

function RevokeDialog({ session, plan, onClose, onDecided }: RevokeProps) {
  const { t } = useTranslation();
  const { message } = App.useApp();
  const [reason, setReason] = useState("");
  const revoke = useMutation({
    mutationFn: () =>
      session.fhir.transaction(
        revocationBundle({
          plan,
          reason,
          practitioner: { reference: session.user.reference ?? "", display: session.user.name },
          recorded: new Date().toISOString(),
        }),
      ),
    onSuccess: () => {
      void message.success(t("plan.revokedDone"));
      onClose();
      onDecided();
    },
    onError: (error) => {
      const changed = error instanceof FhirError && (error.status === 412 || error.status === 409);
      if (changed) {
        onClose();
        onDecided();
      }
      void message[changed ? "warning" : "error"](changed ? t("review.changedMeanwhile") : messageOf(error), 10);
    },
  });
  return (
    <Modal
      open
      centered
      title={t("plan.revokeTitle")}
      okText={t("plan.revoke")}
      cancelText={t("action.cancel")}
      okButtonProps={{ danger: true, disabled: !reason.trim(), ["data-testid" as never]: "confirm-revoke" }}
      confirmLoading={revoke.isPending}
      onOk={() => revoke.mutate()}
      onCancel={onClose}
    >
      <PlanLine plan={plan} />
      <Form layout="vertical" size="small">
        <Form.Item label={t("review.reason")} required>
          <Input.TextArea rows={3} value={reason} maxLength={2000} onChange={(event) => setReason(event.target.value)} data-testid="revoke-reason" />
        </Form.Item>
      </Form>
    </Modal>
  );
}
