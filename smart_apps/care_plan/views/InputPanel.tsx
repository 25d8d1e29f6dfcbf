/** Clinical inputs: red flags first; what is not answered stays unknown. */
import { SaveOutlined, WarningFilled } from "@ant-design/icons";
import { SYSTEM } from "@client/codes";
import { messageOf } from "@client/fhir_error";
import { ago, dateTime } from "@client/format";
import { displayOf, isChinese } from "@client/i18n";
import type { Session } from "@client/session";
import { useMutation } from "@tanstack/react-query";
import { Alert, App, Button, Tag } from "antd";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { type Answers, FACTS, GROUPS, prefillOf, RED_FLAG_DAYS } from "../clinical_input";
import { inputBundle } from "../decision";
import { isRunning, type Recommendation } from "../record";
import { FactField } from "./FactField";

interface InputPanelProps {
  session: Session;
  patientId: string;
  saved: fhir4.QuestionnaireResponse | null;
  recommendation: Recommendation;
  task: fhir4.Task | null;
  onSaved: () => void;
}

export function InputPanel({ session, patientId, saved, recommendation, task, onSaved }: InputPanelProps) {
  const { t } = useTranslation();
  const { message } = App.useApp();
  const [start] = useState(() => prefillOf(saved ?? undefined));
  const [answers, setAnswers] = useState<Answers>(() => start.answers);
  const [dirty, setDirty] = useState(false);
  const { report } = recommendation;
  const running = isRunning(task);
  const missing = new Set(recommendation.missing);
  const save = useMutation({
    mutationFn: () =>
      session.fhir.transaction(
        inputBundle({
          patientId,
          reportId: report?.id ?? "",
          answers,
          synthetic: report?.meta?.tag?.filter((tag) => tag.system === SYSTEM.TAG && tag.code === "SYNTHETIC") ?? [],
          practitioner: { reference: session.user.reference ?? "", display: session.user.name },
          recorded: new Date().toISOString(),
          fullUrl: `urn:uuid:${crypto.randomUUID()}`,
        }),
      ),
    onSuccess: () => {
      setDirty(false);
      void message.success(t("plan.inputsSaved"));
      onSaved();
    },
    onError: (error) => void message.error(messageOf(error), 10),
  });
  const change = (id: string, value: Answers[string] | undefined) => {
    const { [id]: _, ...others } = answers;
    setAnswers(value === undefined ? others : { ...others, [id]: value });
    setDirty(true);
  };
  const answered = Object.keys(answers).length;
  const blocked = !session.user.reference ? t("review.notAPractitioner") : !report ? t("plan.noReport") : undefined;
  return (
    <aside className="input-panel" aria-label={t("plan.inputs")} data-testid="clinical-inputs">
      <div className="input-head">
        <h2>{t("plan.inputs")}</h2>
        <span className="muted">{t("plan.answered", { answered, total: Object.keys(FACTS).length })}</span>
      </div>
      <div className="input-scroll">
        {GROUPS.map((group) => (
          <fieldset key={group.id} className={`fact-group ${group.id}`}>
            <legend>
              {group.id === "redflags" ? <WarningFilled aria-hidden /> : null} {isChinese() ? group.zh : group.display}
            </legend>
            {group.id === "redflags" && start.stale ? (
              <p className="muted" data-testid="stale-redflags">
                {t("plan.staleRedFlags", { days: RED_FLAG_DAYS })}
              </p>
            ) : null}
            {group.facts.map((fact) => (
              <div key={fact.id} className="fact">
                <label htmlFor={`fact-${fact.id}`}>
                  {displayOf(FACTS, fact.id)}
                  {missing.has(fact.id) && answers[fact.id] === undefined ? (
                    <Tag color="gold" className="missing-tag">
                      {t("plan.missing")}
                    </Tag>
                  ) : null}
                </label>
                <FactField fact={fact} value={answers[fact.id]} onChange={(value) => change(fact.id, value)} />
              </div>
            ))}
          </fieldset>
        ))}
      </div>
      <div className="input-foot">
        {running ? <Alert type="info" showIcon title={t("plan.calculating")} /> : null}
        {!running && task && (task.status === "failed" || task.status === "rejected") ? (
          <Alert type="error" showIcon title={t("plan.calculationFailed")} description={task.statusReason?.text} />
        ) : null}
        {blocked ? <Alert type="info" showIcon title={blocked} /> : null}
        {saved ? (
          <p className="muted">
            {t("plan.lastSaved")} {[saved.author?.display, dateTime(saved.authored), ago(saved.authored)].filter(Boolean).join(" · ")}
          </p>
        ) : null}
        <Button
          type="primary"
          block
          icon={<SaveOutlined aria-hidden />}
          disabled={blocked !== undefined || !dirty}
          loading={save.isPending || running}
          onClick={() => save.mutate()}
          data-testid="save-inputs"
        >
          {t("plan.saveInputs")}
        </Button>
      </div>
    </aside>
  );
}
