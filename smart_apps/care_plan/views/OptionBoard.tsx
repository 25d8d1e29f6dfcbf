/** Chosen plan, holds, and the options by verdict. Nothing is chosen beforehand. */
import { DownOutlined, RightOutlined, StopFilled } from "@ant-design/icons";
import { Bilingual } from "@client/components/Bilingual";
import { Nothing } from "@client/components/Problem";
import { dateTime } from "@client/format";
import { displayOf, listOf } from "@client/i18n";
import type { Session } from "@client/session";
import { Alert, Button, Tag } from "antd";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { answersOf, FACTS } from "../clinical_input";
import { needsReason } from "../decision";
import { groupOptions, type Option, type Verdict } from "../options";
import type { PlanHistory, Recommendation } from "../record";
import { ChooseDialog } from "./ChooseDialog";
import { ChosenPlan } from "./ChosenPlan";
import { OptionCard } from "./OptionCard";

interface BoardProps {
  session: Session;
  patient: fhir4.Patient;
  recommendation: Recommendation;
  history: PlanHistory;
  inputs: fhir4.QuestionnaireResponse | null;
  running: boolean;
  onDecided: () => void;
}

const VERIFIED = ["final", "amended", "corrected", "appended"];

export function OptionBoard({ session, patient, recommendation, history, inputs, running, onDecided }: BoardProps) {
  const { t } = useTranslation();
  const [choosing, setChoosing] = useState<Option>();
  const { options, report, holds } = recommendation;
  const current = history.plans.find((plan) => plan.status === "active");
  const rejected = report?.status === "entered-in-error";
  const mayChoose = session.user.reference !== undefined && !rejected && !running;
  return (
    <div className="option-board" aria-busy={running}>
      <ChosenPlan session={session} history={history} onDecided={onDecided} />
      <HoldBanner recommendation={recommendation} />
      <Notes recommendation={recommendation} />
      {rejected ? <Alert type="error" showIcon title={t("plan.reportRejected")} /> : null}
      {recommendation.newerReport ? <Alert type="warning" showIcon title={t("plan.newerReport")} /> : null}
      {report && !rejected && !VERIFIED.includes(report.status) ? <Alert type="warning" showIcon title={t("plan.reportUnverified")} /> : null}
      {options.length === 0 ? (
        <div className="centred">
          <Nothing>{t(running ? "plan.calculating" : "plan.noOptions")}</Nothing>
        </div>
      ) : null}
      {groupOptions(options).map((group) => (
        <VerdictGroup
          key={group.verdict}
          verdict={group.verdict}
          options={group.options}
          currentOption={current?.basedOn?.[0]?.reference}
          mayChoose={mayChoose}
          held={holds.length > 0}
          onChoose={setChoosing}
        />
      ))}
      {choosing ? (
        <ChooseDialog
          session={session}
          patient={patient}
          option={choosing}
          held={holds.length > 0}
          answers={answersOf(inputs ?? undefined)}
          current={current}
          onClose={() => setChoosing(undefined)}
          onDecided={onDecided}
        />
      ) : null}
    </div>
  );
}

/** Which level and rules the options come from, and what the rule base has to say about them. */
function Notes({ recommendation }: { recommendation: Recommendation }) {
  const { t } = useTranslation();
  const { group, options } = recommendation;
  const level = options[0]?.level;
  if (!group?.note?.length) return null;
  return (
    <details className="figures notes">
      <summary>
        {level ? <strong>{t("plan.evaluatedLevel", { level })}</strong> : null} {t("plan.notes")} ·{" "}
        {t("plan.rules", { version: group.instantiatesCanonical?.[0]?.split("|").at(-1) ?? "" })} · {dateTime(group.authoredOn)}
      </summary>
      <ul>
        {group.note.map((note) => (
          <li key={note.text}>
            <Bilingual text={note.text} />
          </li>
        ))}
      </ul>
    </details>
  );
}

function HoldBanner({ recommendation }: { recommendation: Recommendation }) {
  const { t } = useTranslation();
  const { holds, missing } = recommendation;
  if (holds.length === 0 && missing.length === 0) return null;
  const list =
    missing.length > 0 ? (
      <p className="missing-list">
        {t("plan.missingInputs")} {listOf(missing.map((id) => (FACTS[id] ? displayOf(FACTS, id) : id)))}
      </p>
    ) : null;
  if (holds.length === 0) return <Alert type="info" showIcon title={t("plan.missingTitle")} description={list} />;
  return (
    <Alert
      type="error"
      showIcon
      icon={<StopFilled />}
      data-testid="hold-banner"
      className="hold-banner"
      title={t(missing.length > 0 ? "plan.holdAsk" : "plan.hold")}
      description={
        <>
          <ul>
            {holds.map((hold) => (
              <li key={`${hold.rule}${hold.text}`}>
                {hold.rule ? <Tag className="rule-id">{hold.rule}</Tag> : null}
                <Bilingual text={hold.text} />
              </li>
            ))}
          </ul>
          {list}
        </>
      }
    />
  );
}

interface GroupProps {
  verdict: Verdict;
  options: Option[];
  currentOption: string | undefined;
  mayChoose: boolean;
  held: boolean;
  onChoose: (option: Option) => void;
}

function VerdictGroup({ verdict, options, currentOption, mayChoose, held, onChoose }: GroupProps) {
  const { t } = useTranslation();
  const [open, setOpen] = useState(verdict !== "contraindicated");
  return (
    <section className={`verdict-group ${verdict}`} data-verdict={verdict}>
      <h2>
        <Button
          type="text"
          size="small"
          aria-expanded={open}
          icon={open ? <DownOutlined aria-hidden /> : <RightOutlined aria-hidden />}
          onClick={() => setOpen(!open)}
        >
          {t(`plan.verdict.${verdict}`)} ({options.length})
        </Button>
      </h2>
      {open ? (
        <div className="option-grid">
          {options.map((option) => (
            <OptionCard
              key={option.plan.id}
              option={option}
              chosen={currentOption === `CarePlan/${option.plan.id}`}
              mayChoose={mayChoose}
              asOverride={needsReason(option, held, "")}
              onChoose={() => onChoose(option)}
            />
          ))}
        </div>
      ) : null}
    </section>
  );
}
