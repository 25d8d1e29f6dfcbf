/** The dialogue in which a clinician signs: patient shown again, levels checked, reason given. */
import { MORPHOLOGY, PFIRRMANN, SYSTEM } from "@client/codes";
import { displayOf } from "@client/i18n";
import { isClosed } from "@client/reports";
import { codeOf, patientIdentifier, patientName } from "@client/resource";
import { Alert, Checkbox, Form, Input, Modal, Select } from "antd";
import { useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import type { Amendment, DecisionKind } from "../decision";
import { type LevelRow, levelRows, numberingConfident } from "../findings";
import type { ReportRecord } from "../record";

export interface DecisionInput {
  kind: DecisionKind;
  reason: string;
  amendments?: Amendment[];
  conclusion?: string;
}

interface DialogProps {
  kind: DecisionKind;
  patient: fhir4.Patient;
  record: ReportRecord;
  busy: boolean;
  onCancel: () => void;
  onDecide: (input: DecisionInput) => void;
}

/** Finding codes a clinician may change here, with their code system and codes. */
const EDITABLE = {
  F01: { system: SYSTEM.MORPHOLOGY, codes: MORPHOLOGY },
  F06: { system: SYSTEM.PFIRRMANN, codes: PFIRRMANN },
} as const;
type Editable = keyof typeof EDITABLE;
type Choices = Record<string, { code: Editable; value: string }>;

function amendmentsOf(choices: Choices): Amendment[] {
  return Object.entries(choices).map(([observationId, { code, value }]) => {
    const { system, codes } = EDITABLE[code];
    const display = codes[value]?.display;
    return {
      observationId,
      coding: { system, code: value, ...(display ? { display } : {}) },
      text: codes[value]?.zh ?? value,
    };
  });
}

export function DecisionDialog({ kind, patient, record, busy, onCancel, onDecide }: DialogProps) {
  const { t } = useTranslation();
  const [reason, setReason] = useState("");
  const [checked, setChecked] = useState(false);
  const [choices, setChoices] = useState<Choices>({});
  const [conclusion, setConclusion] = useState(record.report.conclusion ?? "");
  const rows = useMemo(() => levelRows(record.observations), [record.observations]);
  const edited = Object.keys(choices).length > 0 || conclusion !== (record.report.conclusion ?? "");
  const complete = kind === "verify" ? checked : reason.trim() !== "" && (kind === "reject" || (checked && edited));
  const submit = () => {
    const input: DecisionInput = { kind, reason };
    if (kind === "amend") onDecide({ ...input, amendments: amendmentsOf(choices), conclusion });
    else onDecide(input);
  };
  return (
    <Modal
      open
      centered
      width={kind === "amend" ? 720 : 520}
      title={t(`review.dialog.${kind}`)}
      okText={t(`review.${kind}`)}
      cancelText={t("action.cancel")}
      okButtonProps={{ disabled: !complete, danger: kind === "reject", ["data-testid" as never]: "confirm-decision" }}
      confirmLoading={busy}
      onOk={submit}
      onCancel={onCancel}
    >
      <p className="dialog-patient">
        <strong>{patientName(patient)}</strong> <span className="patient-id">{patientIdentifier(patient)}</span>
      </p>
      {kind !== "reject" && numberingConfident(record.observations) === false ? (
        <Alert type="error" showIcon title={t("review.numberingUnsure")} />
      ) : null}
      <Form layout="vertical" size="small">
        {kind === "amend" ? <AmendTable rows={rows} choices={choices} onChange={setChoices} /> : null}
        {kind === "amend" ? (
          <Form.Item label={t("review.conclusion")}>
            <Input.TextArea
              rows={4}
              value={conclusion}
              onChange={(event) => setConclusion(event.target.value)}
              data-testid="amend-conclusion"
            />
          </Form.Item>
        ) : null}
        <Form.Item label={t(kind === "verify" ? "review.reasonOptional" : "review.reason")} required={kind !== "verify"}>
          <Input.TextArea
            rows={2}
            value={reason}
            maxLength={2000}
            placeholder={t(`review.reasonHint.${kind}`)}
            onChange={(event) => setReason(event.target.value)}
            data-testid="decision-reason"
          />
        </Form.Item>
        {kind === "reject" ? null : (
          <Checkbox checked={checked} onChange={(event) => setChecked(event.target.checked)} data-testid="decision-check">
            {t("review.checked")}
          </Checkbox>
        )}
      </Form>
    </Modal>
  );
}

interface AmendProps {
  rows: LevelRow[];
  choices: Choices;
  onChange: (choices: Choices) => void;
}

function AmendTable({ rows, choices, onChange }: AmendProps) {
  const { t } = useTranslation();
  return (
    <table className="amend-table">
      <thead>
        <tr>
          <th scope="col">{t("review.level")}</th>
          <th scope="col">{t("review.column.F01")}</th>
          <th scope="col">{t("review.column.F06")}</th>
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr key={row.level}>
            <th scope="row">{row.level}</th>
            {(Object.keys(EDITABLE) as Editable[]).map((code) => (
              <td key={code}>
                <AmendCell row={row} code={code} choices={choices} onChange={onChange} />
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function AmendCell({ row, code, choices, onChange }: { row: LevelRow; code: Editable; choices: Choices; onChange: (choices: Choices) => void }) {
  const { t } = useTranslation();
  const observation = row.findings.get(code)?.observation;
  const id = observation?.id;
  if (!observation || !id) return <span className="not-reported">{t("review.notReported")}</span>;
  const { system, codes } = EDITABLE[code];
  const before = codeOf(observation.valueCodeableConcept, system);
  const value = choices[id]?.value ?? before;
  const choose = (next: string) => {
    const { [id]: _, ...others } = choices;
    onChange(next === before ? others : { ...others, [id]: { code, value: next } });
  };
  return (
    <Select<string>
      className={choices[id] ? "edited-select" : ""}
      style={{ width: "100%" }}
      disabled={isClosed(observation)}
      {...(value ? { value } : {})}
      placeholder={t("ai.cannotAssess")}
      aria-label={`${row.level} ${t(`review.column.${code}`)}`}
      data-testid={`amend-${row.level}-${code}`}
      options={Object.keys(codes).map((item) => ({ value: item, label: displayOf(codes, item) }))}
      onChange={choose}
    />
  );
}
