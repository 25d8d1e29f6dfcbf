/** Chinese first, English second; the choice is kept in the browser. */
import i18next from "i18next";
import { initReactI18next } from "react-i18next";
import en from "./locales/en-US.json";
import zh from "./locales/zh-CN.json";

export type Language = "zh-CN" | "en-US";
const KEY = "foramen.language";

declare module "i18next" {
  interface CustomTypeOptions {
    defaultNS: "translation";
    resources: { translation: typeof zh };
  }
}

export function storedLanguage(): Language {
  return localStorage.getItem(KEY) === "en-US" ? "en-US" : "zh-CN";
}

export async function initLanguage(): Promise<void> {
  await i18next.use(initReactI18next).init({
    lng: storedLanguage(),
    fallbackLng: "zh-CN",
    resources: { "zh-CN": { translation: zh }, "en-US": { translation: en } },
    interpolation: { escapeValue: false },
  });
  document.documentElement.lang = i18next.language;
}

export async function switchLanguage(language: Language): Promise<void> {
  localStorage.setItem(KEY, language);
  await i18next.changeLanguage(language);
  document.documentElement.lang = language;
}

export function isChinese(): boolean {
  return i18next.language !== "en-US";
}

/** Of a text with one Chinese and one English line, the line in the language of the screen; any other text as it is. */
export function ownLanguageLine(text: string): string {
  const lines = text.split("\n").filter((line) => line.trim());
  if (lines.length !== 2) return text;
  const [first = "", second = ""] = lines;
  const han = /\p{Script=Han}/u;
  if (!han.test(first) || han.test(second)) return text;
  return isChinese() ? first : second;
}

const PAIR = /^(\S*\p{Script=Han}.*?)\s+([a-z][^\p{Script=Han}]*)$/su;

/** Of a Chinese phrase and then its English one, which begins small as our services write it, the screen's; any other text as it is. */
export function ownLanguagePhrase(text: string): string {
  const [, zh, en] = PAIR.exec(text) ?? [];
  if (!zh || !en) return ownLanguageLine(text);
  return isChinese() ? zh : en;
}

/** The display of a code in the language of the screen. */
export function displayOf(table: Record<string, { display: string; zh: string }>, code: string | undefined): string {
  const entry = code === undefined ? undefined : table[code];
  if (!entry) return code ?? "";
  return isChinese() ? entry.zh : entry.display;
}

/** Words in a row, with the comma of the screen's language. */
export function listOf(words: string[]): string {
  return words.join(isChinese() ? "、" : ", ");
}
