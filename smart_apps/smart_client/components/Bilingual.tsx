/** A text that says the same in Chinese and then in English: nothing is left out, the second language stands back. */
export function Bilingual({ text }: { text: string }) {
  const match = /^(.*[\p{Script=Han}。；，、）)》？！])\s+([^\p{Script=Han}]+)$/su.exec(text);
  if (!match) return <>{text}</>;
  return (
    <>
      {match[1]} <span className="second-language">{match[2]}</span>
    </>
  );
}
