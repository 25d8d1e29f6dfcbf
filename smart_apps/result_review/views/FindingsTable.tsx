/** Findings disc by disc, L5-S1 first. What could not be assessed says so and never looks normal. */
import { AimOutlined, QuestionCircleOutlined } from "@ant-design/icons";
import { FINDINGS } from "@client/codes";
import { AiValue } from "@client/components/AiValue";
import { displayOf, listOf } from "@client/i18n";
import { useTranslation } from "react-i18next";
import { absentByReason, type Finding, type LevelRow } from "../findings";
import { absentText, type Context, detailsOf, findingName } from "../wording";

/** Columns every row has; other findings follow in the last one. */
const COLUMNS = ["F01", "F06", "F13", "canal-ap"] as const;

interface TableProps {
  rows: LevelRow[];
  general: Finding[];
  context: Context;
  focus: string | undefined;
  onFocus: (level: string) => void;
}

export function FindingsTable({ rows, general, context, focus, onFocus }: TableProps) {
  const { t } = useTranslation();
  const others = rows.some((row) => [...row.findings.keys()].some((code) => !isColumn(code)));
  return (
    <>
      <div className="findings-scroll">
        <table className="findings">
          <thead>
            <tr>
              <th scope="col">{t("review.level")}</th>
              {COLUMNS.map((code) => (
                <th key={code} scope="col">
                  {t(`review.column.${code}`)}
                </th>
              ))}
              {others ? <th scope="col">{t("review.column.other")}</th> : null}
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <FindingRow key={row.level} row={row} others={others} context={context} focused={focus === row.level} onFocus={onFocus} />
            ))}
          </tbody>
        </table>
      </div>
      <GeneralFindings findings={general} context={context} />
    </>
  );
}

/** Findings about the whole study: values one by one, what could not be assessed by its reason. */
function GeneralFindings({ findings, context }: { findings: Finding[]; context: Context }) {
  const { t } = useTranslation();
  const valued = findings.filter((finding) => finding.observation.dataAbsentReason === undefined);
  const absent = absentByReason(findings);
  return (
    <div className="general-findings">
      {valued.map((finding) => (
        <OtherFinding key={finding.observation.id} finding={finding} context={context} />
      ))}
      {absent.length > 0 ? (
        <div className="absent-block" data-testid="absent-findings">
          <strong>
            <QuestionCircleOutlined aria-hidden /> {t("review.notAssessed")}
          </strong>
          <ul>
            {absent.map(({ reason, codes }) => (
              <li key={reason}>
                {listOf(codes.map((code) => (FINDINGS[code] ? displayOf(FINDINGS, code) : code)))}
                <span className="absent-reason">— {absentText({ text: reason })}</span>
              </li>
            ))}
          </ul>
        </div>
      ) : null}
    </div>
  );
}

function isColumn(code: string): boolean {
  return COLUMNS.some((column) => column === code);
}

interface RowProps {
  row: LevelRow;
  others: boolean;
  context: Context;
  focused: boolean;
  onFocus: (level: string) => void;
}

function FindingRow({ row, others, context, focused, onFocus }: RowProps) {
  const { t } = useTranslation();
  const rest = [...row.findings.values()].filter((finding) => !isColumn(finding.code));
  return (
    <tr className={focused ? "focused" : ""} data-testid="finding-row" data-level={row.level} onClick={() => onFocus(row.level)}>
      <th scope="row">
        <button
          type="button"
          className="level-button"
          aria-pressed={focused}
          title={t("review.showLevel", { level: row.level })}
          onClick={(event) => {
            event.stopPropagation();
            onFocus(row.level);
          }}
        >
          <AimOutlined aria-hidden /> {row.level}
        </button>
      </th>
      {COLUMNS.map((code) => (
        <td key={code}>
          <Cell finding={row.findings.get(code)} context={context} />
        </td>
      ))}
      {others ? (
        <td>
          {rest.map((finding) => (
            <OtherFinding key={finding.observation.id} finding={finding} context={context} />
          ))}
        </td>
      ) : null}
    </tr>
  );
}

function Cell({ finding, context }: { finding: Finding | undefined; context: Context }) {
  const { t } = useTranslation();
  if (!finding) return <span className="not-reported">{t("review.notReported")}</span>;
  return <AiValue details={detailsOf(finding, context)} />;
}

function OtherFinding({ finding, context }: { finding: Finding; context: Context }) {
  return (
    <div className="other-finding">
      <span className="muted">{findingName(finding)}</span> <AiValue details={detailsOf(finding, context)} />
    </div>
  );
}
