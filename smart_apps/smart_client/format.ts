/** Numbers, dates and people as text. Times are shown in the clinician's time zone. */
import i18next from "i18next";
import { isChinese } from "./i18n";

export function dateTime(value: string | undefined): string {
  if (!value) return "";
  const date = new Date(value);
  if (Number.isNaN(date.getTime())) return value;
  const format = new Intl.DateTimeFormat(isChinese() ? "zh-CN" : "en-GB", {
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
    hour: "2-digit",
    minute: "2-digit",
    hour12: false,
  });
  return format.format(date);
}

/** The calendar day alone. */
export function dateOnly(value: string | undefined): string {
  if (!value) return "";
  const date = new Date(value);
  if (Number.isNaN(date.getTime())) return value;
  const format = new Intl.DateTimeFormat(isChinese() ? "zh-CN" : "en-GB", { year: "numeric", month: "2-digit", day: "2-digit" });
  return format.format(date);
}

/** "3 minutes ago", counted from `now`. */
export function ago(value: string | undefined, now: number = Date.now()): string {
  if (!value) return "";
  const seconds = Math.round((new Date(value).getTime() - now) / 1000);
  if (Number.isNaN(seconds)) return "";
  const format = new Intl.RelativeTimeFormat(i18next.language, { numeric: "auto" });
  const steps: [Intl.RelativeTimeFormatUnit, number][] = [["day", 86400], ["hour", 3600], ["minute", 60]];
  for (const [unit, size] of steps) {
    if (Math.abs(seconds) >= size) return format.format(Math.trunc(seconds / size), unit);
  }
  return format.format(Math.min(0, seconds), "second");
}

/** Full years between a birth date (FHIR date, may lack month or day) and `today`. */
export function ageYears(birthDate: string | undefined, today: Date = new Date()): number | undefined {
  const [year, month, day] = (birthDate ?? "").split("-").map(Number);
  if (!year) return undefined;
  const years = today.getFullYear() - year;
  const before = today.getMonth() + 1 < (month ?? 1) || (today.getMonth() + 1 === (month ?? 1) && today.getDate() < (day ?? 1));
  return before ? years - 1 : years;
}

/** A measured number: as many digits as the unit deserves, never more than was sent. */
export function quantityText(value: number | undefined, unit: string | undefined): string {
  if (value === undefined) return "";
  const digits = unit === "mm" ? 1 : 2;
  return Number.isInteger(value) ? String(value) : value.toFixed(digits);
}

export function percent(share: number): string {
  return `${Math.round(share * 100)}%`;
}
