/** Turns an option into a plan: every field can be edited, level and side are checked, an override gives its reason. */
import { LEVELS, OPTIONS } from "@client/codes";
import { FhirError, messageOf } from "@client/fhir_error";
import { displayOf, isChinese, ownLanguageLine } from "@client/i18n";
import { patientIdentifier, patientName } from "@client/resource";
import type { Session } from "@client/session";
import { useMutation } from "@tanstack/react-query";
import { Alert, App, Checkbox, Form, Input, Modal, Select } from "antd";
import { type ReactNode, useState } from "react";
import { useTranslation } from "react-i18next";
import { type Answers, SIDES } from "../clinical_input";
import { choiceBundle, needsReason, otherLevel } from "../decision";
import { numberingUnsure, type Option } from "../options";

interface ChooseProps {
  session: Session;
  patient: fhir4.Patient;
  option: Option;
  held: boolean;
  answers: Answers;
  current: fhir4.CarePlan | undefined;
  onClose: () => void;
  onDecided: () => void;
}

const PLAN_SIDES = ["left", "right", "bilateral"];

interface Draft {
  title: string;
  description: string;
  level: string;
  side: string;
  note: string;
  reason: string;
  checked: boolean;
}

function startDraft(option: Option, answers: Answers): Draft {
  const side = String(answers["side"] ?? "");
  return {
    // The level stands in its own field: a title that names another one would contradict it.
    title: OPTIONS[option.code] ? displayOf(OPTIONS, option.code) : option.code,
    description: ownLanguageLine(option.plan.description ?? ""),
    // Level and side are never guessed: only what a clinician already stated is filled in.
    level: String(answers["index_level"] ?? ""),
    side: PLAN_SIDES.includes(side) ? side : "",
    note: "",
    reason: "",
    checked: false,
  };
}

export function ChooseDialog({ session, patient, option, held, answers, current, onClose, onDecided }: ChooseProps) {
  const { t } = useTranslation();
  const { message } = App.useApp();
  const [draft, setDraft] = useState(() => startDraft(option, answers));
  const set = (change: Partial<Draft>) => setDraft((before) => ({ ...before, ...change }));
  const reasonNeeded = needsReason(option, held, draft.level);
  const mismatch = otherLevel(option, draft.level);
  const titleLevel = LEVELS.find((level) => draft.title.includes(level));
  const contradicts = titleLevel !== undefined && draft.level !== "" && titleLevel !== draft.level;
  const complete = draft.title.trim() && !contradicts && draft.level && draft.side && draft.checked && (!reasonNeeded || draft.reason.trim());
  const confirm = useMutation({
    mutationFn: () =>
      session.fhir.transaction(
        choiceBundle({
          ...draft,
          option,
          held,
          current,
          fullUrl: `urn:uuid:${crypto.randomUUID()}`,
          practitioner: { reference: session.user.reference ?? "", display: session.user.name },
          recorded: new Date().toISOString(),
        }),
      ),
    onSuccess: () => {
      void message.success(t("plan.chosenDone"));
      onClose();
      onDecided();
    },
    onError: (error) => {
      if (error instanceof FhirError && (error.status === 412 || error.status === 409)) {
        void message.warning(t("review.changedMeanwhile"), 10);
        onClose();
        onDecided();
        return;
      }
      void message.error(messageOf(error), 10);
    },
  });
  return (
    <Modal
      open
      width={620}
      centered
      title={t("plan.dialogTitle")}
      okText={t("plan.confirm")}
      cancelText={t("action.cancel")}
      okButtonProps={{ disabled: !complete, ["data-testid" as never]: "confirm-plan" }}
      confirmLoading={confirm.isPending}
      onOk={() => confirm.mutate()}
      onCancel={onClose}
    >
      <p className="dialog-patient">
        <strong>{patientName(patient)}</strong> <span className="patient-id">{patientIdentifier(patient)}</span> ·{" "}
        <span className="option-code">{option.code}</span> {displayOf(OPTIONS, option.code)}
      </p>
      <Warnings>
      {numberingUnsure(option) ? <Alert type="error" showIcon title={t("plan.numberingUnsure")} data-testid="numbering-unsure" /> : null}
      {current ? <Alert type="info" showIcon title={t("plan.replaces", { title: current.title ?? "" })} /> : null}
      {held || option.verdict !== "eligible" ? <Alert type="warning" showIcon title={t(held ? "plan.overrideHold" : "plan.override")} /> : null}
      {mismatch ? <Alert type="warning" showIcon title={t("plan.otherLevel", { level: option.level ?? "" })} /> : null}
      {contradicts ? <Alert type="error" showIcon title={t("plan.titleLevel", { level: titleLevel })} /> : null}
      </Warnings>
      <PlanForm draft={draft} set={set} reasonNeeded={reasonNeeded} />
    </Modal>
  );
}

function Warnings({ children }: { children: ReactNode }) {
  return <div className="dialog-warnings">{children}</div>;
}

function PlanForm({ draft, set, reasonNeeded }: { draft: Draft; set: (change: Partial<Draft>) => void; reasonNeeded: boolean }) {
  const { t } = useTranslation();
  const levels = LEVELS.map((level) => ({ value: level, label: level }));
  const sides = PLAN_SIDES.map((side) => ({ value: side, label: isChinese() ? SIDES[side]?.zh : SIDES[side]?.display }));
  return (
    <Form layout="vertical" size="small" className="plan-form">
      <Form.Item label={t("plan.field.title")} required>
        <Input value={draft.title} maxLength={200} onChange={(event) => set({ title: event.target.value })} data-testid="plan-title" />
      </Form.Item>
      <div className="form-pair">
        <Form.Item label={t("plan.field.level")} required>
          <Select
            options={levels}
            {...(draft.level ? { value: draft.level } : {})}
            placeholder={t("plan.pickLevel")}
            onChange={(level: string) => set({ level })}
            data-testid="plan-level"
            aria-label={t("plan.field.level")}
          />
        </Form.Item>
        <Form.Item label={t("plan.field.side")} required>
          <Select
            options={sides}
            {...(draft.side ? { value: draft.side } : {})}
            placeholder={t("plan.pickSide")}
            onChange={(side: string) => set({ side })}
            data-testid="plan-side"
            aria-label={t("plan.field.side")}
          />
        </Form.Item>
      </div>
      <Form.Item label={t("plan.field.description")}>
        <Input.TextArea rows={3} value={draft.description} maxLength={4000} onChange={(event) => set({ description: event.target.value })} />
      </Form.Item>
      <Form.Item label={t("plan.field.note")}>
        <Input.TextArea rows={2} value={draft.note} maxLength={2000} onChange={(event) => set({ note: event.target.value })} data-testid="plan-note" />
      </Form.Item>
      <Form.Item label={t(reasonNeeded ? "review.reason" : "review.reasonOptional")} required={reasonNeeded}>
        <Input.TextArea rows={2} value={draft.reason} maxLength={2000} onChange={(event) => set({ reason: event.target.value })} data-testid="plan-reason" />
      </Form.Item>
      <Checkbox checked={draft.checked} onChange={(event) => set({ checked: event.target.checked })} data-testid="plan-check">
        {t("plan.checked")}
      </Checkbox>
    </Form>
  );
}
