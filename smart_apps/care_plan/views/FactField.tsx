/** One question. "Unknown" is an answer of its own and the first one. */
import { isChinese } from "@client/i18n";
import { InputNumber, Segmented, Select } from "antd";
import { useTranslation } from "react-i18next";
import type { Fact, FactValue } from "../clinical_input";

interface FactFieldProps {
  fact: Fact;
  value: FactValue | undefined;
  onChange: (value: FactValue | undefined) => void;
}

export function FactField({ fact, value, onChange }: FactFieldProps) {
  const { t } = useTranslation();
  const id = `fact-${fact.id}`;
  if (fact.type === "boolean") {
    const options = [
      { value: "unknown", label: t("word.unknown") },
      { value: "true", label: t("word.yes") },
      { value: "false", label: t("word.no") },
    ];
    return (
      <Segmented
        id={id}
        size="small"
        options={options}
        value={value === undefined ? "unknown" : String(value)}
        onChange={(next) => onChange(next === "unknown" ? undefined : next === "true")}
        data-testid={id}
        aria-label={isChinese() ? fact.zh : fact.display}
      />
    );
  }
  if (fact.type === "code") {
    const options = Object.entries(fact.values).map(([code, display]) => ({
      value: code,
      label: isChinese() ? display.zh : display.display,
    }));
    return (
      <Select<string>
        id={id}
        size="small"
        allowClear
        className="fact-select"
        options={options}
        {...(typeof value === "string" ? { value } : {})}
        placeholder={t("word.unknown")}
        onChange={(next: string | undefined) => onChange(next)}
        data-testid={id}
      />
    );
  }
  return (
    <InputNumber
      id={id}
      size="small"
      className="fact-number"
      min={fact.minimum}
      {...(fact.maximum === undefined ? {} : { max: fact.maximum })}
      {...(fact.type === "integer" ? { precision: 0 } : {})}
      value={typeof value === "number" ? value : null}
      placeholder={t("word.unknown")}
      onChange={(next) => onChange(next ?? undefined)}
      data-testid={id}
    />
  );
}
