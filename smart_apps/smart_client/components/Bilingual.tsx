/**
 * A text that says the same in Chinese and then in English, as our own services write it. Whole sentences are shown in the
 * language of the screen, with the other one as a tooltip; where the border is not certain both are shown.
 */
import { isChinese } from "../i18n";

const SENTENCES = /^(.*[。！？])\s*([^\p{Script=Han}]*\p{Script=Latin}[^\p{Script=Han}]*)$/su;
const PHRASES = /^(.*[\p{Script=Han}；，、）)》])\s+([^\p{Script=Han}]+)$/su;

export function Bilingual({ text }: { text: string }) {
  const sentences = SENTENCES.exec(text);
  if (sentences) {
    const [, zh = "", en = ""] = sentences;
    return <span title={isChinese() ? en : zh}>{isChinese() ? zh : en}</span>;
  }
  const phrases = PHRASES.exec(text);
  if (!phrases) return <>{text}</>;
  return (
    <>
      {phrases[1]} <span className="second-language">{phrases[2]}</span>
    </>
  );
}
