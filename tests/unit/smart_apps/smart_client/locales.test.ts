// Both languages say everything, with the same blanks to fill.
import en from "@client/locales/en-US.json";
import zh from "@client/locales/zh-CN.json";

function flat(node: object, path = ""): [string, string][] {
  return Object.entries(node).flatMap(([key, value]): [string, string][] =>
    typeof value === "string" ? [[`${path}${key}`, value]] : flat(value as object, `${path}${key}.`),
  );
}

it("has the same keys and blanks in Chinese and English", () => {
  const blanks = ([key, text]: [string, string]) => [key, (text.match(/{{\w+}}/g) ?? []).sort()];
  expect(flat(zh).map(blanks)).toEqual(flat(en).map(blanks));
});

it("leaves no text empty", () => {
  expect([...flat(zh), ...flat(en)].filter(([, text]) => !text.trim())).toEqual([]);
});
