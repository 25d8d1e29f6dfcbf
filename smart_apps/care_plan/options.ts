/** Option CarePlans as cards: pure reading, grouping and ordering. Clinical model §3, §9 */
import { LEVELS, SYSTEM } from "@client/codes";
import { codeOf, extensionsOf, idOf } from "@client/resource";

export const VERDICTS = ["eligible", "relatively-contraindicated", "not-assessable", "contraindicated"] as const;
export type Verdict = (typeof VERDICTS)[number];
/** `open`: a rule that could still speak against the option once a missing fact is known. */
export type Stance = "for" | "against" | "open" | "note";
export type Verification = "sourced" | "unverified" | "policy";

export interface Rule {
  id: string;
  /** What the rule does to the option; one rule may do several things. */
  effects: string[];
  stance: Stance;
  text: string;
  sources: string[];
  verification: Verification;
  /** Facts an open rule waits for. */
  missing: string[];
}

/** A published figure: about the cited group of patients, never about this patient. */
export interface Figure {
  text: string;
  n: string | undefined;
  setting: string | undefined;
  source: string | undefined;
}

export interface Option {
  plan: fhir4.CarePlan;
  code: string;
  verdict: Verdict;
  rules: Rule[];
  figures: Figure[];
  reportId: string | undefined;
  /** Level the rules looked at; the title of an option begins with it. */
  level: string | undefined;
}

export interface Hold {
  rule: string | undefined;
  text: string;
}

function part(extension: fhir4.Extension, url: string): fhir4.Extension | undefined {
  return extension.extension?.find((item) => item.url === url);
}

function parts(extension: fhir4.Extension, url: string): string[] {
  return (extension.extension ?? []).flatMap((item) => (item.url === url && item.valueString ? [item.valueString] : []));
}

function stanceOf(value: string | undefined): Stance {
  return value === "for" || value === "against" || value === "open" ? value : "note";
}

/** Whatever does not say that it is sourced is shown as unverified: the doubt is the safe default. */
function verificationOf(value: string | undefined): Verification {
  return value === "sourced" || value === "policy" ? value : "unverified";
}

function ruleOf(extension: fhir4.Extension): Rule {
  return {
    id: part(extension, "rule")?.valueCode ?? "",
    effects: [part(extension, "effect")?.valueCode ?? ""],
    stance: stanceOf(part(extension, "stance")?.valueCode),
    text: part(extension, "text")?.valueString ?? "",
    sources: parts(extension, "source"),
    verification: verificationOf(part(extension, "verification")?.valueCode),
    missing: parts(extension, "missing"),
  };
}

/** A rule that speaks twice with one stance is one entry with two effects. */
function mergeRules(rules: Rule[]): Rule[] {
  const merged = new Map<string, Rule>();
  for (const rule of rules) {
    const key = `${rule.id}|${rule.stance}|${rule.text}`;
    const before = merged.get(key);
    merged.set(key, before ? { ...before, effects: [...before.effects, ...rule.effects] } : rule);
  }
  return [...merged.values()];
}

function figureOf(extension: fhir4.Extension): Figure {
  return {
    text: part(extension, "text")?.valueString ?? extension.valueString ?? "",
    n: part(extension, "n")?.valueString,
    setting: part(extension, "setting")?.valueString,
    source: part(extension, "source")?.valueString,
  };
}

/** A verdict we cannot read is "not assessable", never "eligible". */
function verdictOf(plan: fhir4.CarePlan): Verdict {
  const value = extensionsOf(plan, SYSTEM.EXTENSION_VERDICT)[0]?.valueCode;
  return VERDICTS.find((verdict) => verdict === value) ?? "not-assessable";
}

export function optionOf(plan: fhir4.CarePlan): Option {
  return {
    plan,
    code: plan.category?.map((category) => codeOf(category, SYSTEM.OPTION)).find((code) => code !== undefined) ?? "",
    verdict: verdictOf(plan),
    rules: mergeRules(extensionsOf(plan, SYSTEM.EXTENSION_RULES).map(ruleOf)),
    figures: extensionsOf(plan, SYSTEM.EXTENSION_FIGURE).map(figureOf),
    level: LEVELS.find((level) => plan.title?.startsWith(level)),
    reportId: plan.supportingInfo?.map((info) => idOf(info, "DiagnosticReport")).find((id) => id !== undefined),
  };
}

/** CarePlan ids in the order the recommendation gives them. */
export function planIds(group: fhir4.RequestGroup): string[] {
  return (group.action ?? []).flatMap((action) => idOf(action.resource, "CarePlan") ?? []);
}

/** Options by verdict, best first; inside a verdict the order of the recommendation is kept. */
export function groupOptions(options: Option[]): { verdict: Verdict; options: Option[] }[] {
  return VERDICTS.map((verdict) => ({ verdict, options: options.filter((option) => option.verdict === verdict) })).filter(
    (group) => group.options.length > 0,
  );
}

/** `R02: ask first` is rule R02 with its text. */
export function holdsOf(group: fhir4.RequestGroup): Hold[] {
  return extensionsOf(group, SYSTEM.EXTENSION_HOLD).map((extension) => {
    const value = extension.valueString ?? "";
    const match = /^(R\d+)\s*[:：]\s*(.*)$/s.exec(value);
    return match ? { rule: match[1], text: match[2] ?? "" } : { rule: undefined, text: value };
  });
}

/** Names of clinical facts that were asked for and not known. */
export function missingInputs(group: fhir4.RequestGroup): string[] {
  return extensionsOf(group, SYSTEM.EXTENSION_MISSING_INPUT).flatMap((extension) => extension.valueString ?? []);
}

/** Rule R18 spoke: the vertebrae were not counted reliably, so the level of this option is not sure (hazard H02). */
export function numberingUnsure(option: Option): boolean {
  return option.rules.some((rule) => rule.id === "R18" && rule.stance !== "open");
}
