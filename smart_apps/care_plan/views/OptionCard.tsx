/** One option with the rules that spoke for and against it, their sources and how far each can be trusted. */
import {
  CheckCircleOutlined,
  CloseCircleOutlined,
  ExclamationCircleOutlined,
  InfoCircleOutlined,
  MinusCircleOutlined,
  PlusCircleOutlined,
  QuestionCircleOutlined,
} from "@ant-design/icons";
import { OPTIONS } from "@client/codes";
import { Bilingual } from "@client/components/Bilingual";
import { displayOf, isChinese, ownLanguageLine } from "@client/i18n";
import { Button, Tag } from "antd";
import { useTranslation } from "react-i18next";
import type { Figure, Option, Rule, Stance, Verdict } from "../options";

const VERDICT_LOOK: Record<Verdict, { icon: typeof CheckCircleOutlined; color: string }> = {
  eligible: { icon: CheckCircleOutlined, color: "success" },
  "relatively-contraindicated": { icon: ExclamationCircleOutlined, color: "warning" },
  contraindicated: { icon: CloseCircleOutlined, color: "error" },
  "not-assessable": { icon: QuestionCircleOutlined, color: "default" },
};
const STANCES: { stance: Stance; icon: typeof CheckCircleOutlined }[] = [
  { stance: "for", icon: PlusCircleOutlined },
  { stance: "against", icon: MinusCircleOutlined },
  { stance: "open", icon: QuestionCircleOutlined },
  { stance: "note", icon: InfoCircleOutlined },
];
const BADGE = { sourced: "green", unverified: "orange", policy: "geekblue" } as const;

interface CardProps {
  option: Option;
  chosen: boolean;
  mayChoose: boolean;
  /** Choosing this needs a reason: the rules do not support it, or a hold stands. */
  asOverride: boolean;
  onChoose: () => void;
}

export function OptionCard({ option, chosen, mayChoose, asOverride, onChoose }: CardProps) {
  const { t } = useTranslation();
  const look = VERDICT_LOOK[option.verdict];
  const Icon = look.icon;
  const open = option.rules.filter((rule) => rule.stance === "open").length;
  const names = OPTIONS[option.code];
  const first = names ? displayOf(OPTIONS, option.code) : (option.plan.title ?? option.code);
  const second = names ? (isChinese() ? names.display : names.zh) : "";
  return (
    <article className={`option-card ${option.verdict}${chosen ? " chosen" : ""}`} data-testid="option-card" data-option={option.code} data-verdict={option.verdict}>
      <header>
        <div>
          <h3>
            <span className="option-code">{option.code}</span> {first}
          </h3>
          <div className="second-language">{second}</div>
        </div>
        <div className="verdict">
          <Tag color={look.color} icon={<Icon aria-hidden />}>
            {t(`plan.verdict.${option.verdict}`)}
          </Tag>
          {open > 0 ? (
            <Tag color="warning" icon={<QuestionCircleOutlined aria-hidden />} data-testid="open-rules">
              {t("plan.open", { count: open })}
            </Tag>
          ) : null}
        </div>
      </header>
      {option.plan.description ? <p className="option-description">{ownLanguageLine(option.plan.description)}</p> : null}
      {STANCES.map(({ stance, icon }) => (
        <Rules key={stance} stance={stance} icon={icon} rules={option.rules.filter((rule) => rule.stance === stance)} />
      ))}
      {option.rules.length === 0 ? <p className="muted">{t("plan.noRule")}</p> : null}
      <Figures figures={option.figures} />
      <footer>
        {chosen ? <Tag color="success">{t("plan.isChosen")}</Tag> : null}
        <span className="spacer" />
        <Button
          size="small"
          type={asOverride ? "default" : "primary"}
          ghost={!asOverride}
          disabled={!mayChoose || chosen}
          onClick={onChoose}
          data-testid="choose-option"
        >
          {t(asOverride ? "plan.chooseAnyway" : "plan.choose")}
        </Button>
      </footer>
    </article>
  );
}

function Rules({ stance, icon: Icon, rules }: { stance: Stance; icon: typeof CheckCircleOutlined; rules: Rule[] }) {
  const { t } = useTranslation();
  if (rules.length === 0) return null;
  const title = (
    <>
      <Icon aria-hidden /> {t(`plan.stance.${stance}`)}
    </>
  );
  if (stance === "open") {
    return (
      <details className="rules open">
        <summary>
          {title} ({rules.length})
        </summary>
        <RuleList rules={rules} />
      </details>
    );
  }
  return (
    <div className={`rules ${stance}`}>
      <h4>{title}</h4>
      <RuleList rules={rules} />
    </div>
  );
}

function RuleList({ rules }: { rules: Rule[] }) {
  const { t } = useTranslation();
  return (
      <ul>
        {rules.map((rule) => (
          <li key={rule.id + rule.effects.join()}>
            <Tag className="rule-id">{[rule.id, ...rule.effects].join(" ")}</Tag>
            <Bilingual text={rule.text} />
            {rule.missing.length > 0 ? (
              <span className="rule-missing">
                {t("plan.missingInputs")} {rule.missing.map((text) => <Bilingual key={text} text={text} />)}
              </span>
            ) : null}
            <span className="rule-source">
              {rule.sources.length > 0 ? <cite>{rule.sources.join(" ")}</cite> : null}
              <Tag color={BADGE[rule.verification]} className="badge">
                {t(`plan.verification.${rule.verification}`)}
              </Tag>
            </span>
          </li>
        ))}
      </ul>
  );
}

function Figures({ figures }: { figures: Figure[] }) {
  const { t } = useTranslation();
  if (figures.length === 0) return <p className="muted no-figures">{t("plan.noFigures")}</p>;
  return (
    <details className="figures">
      <summary>{t("plan.figures", { count: figures.length })}</summary>
      <ul>
        {figures.map((figure) => (
          <li key={figure.text + figure.source}>
            <Bilingual text={figure.text} />
            <span className="rule-source">
              {[figure.n, figure.setting].filter(Boolean).join(" · ")} {figure.source ? <cite>{figure.source}</cite> : null}
            </span>
          </li>
        ))}
      </ul>
      <p className="muted">{t("plan.figuresNote")}</p>
    </details>
  );
}
