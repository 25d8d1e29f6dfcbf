// Ages and numbers.
import { ageYears, quantityText } from "@client/format";

it("counts full years, also from a year alone", () => {
  const today = new Date(2026, 10, 22);
  expect(ageYears("1980-11-22", today)).toBe(46);
  expect(ageYears("1980-11-23", today)).toBe(45);
  expect(ageYears("1980", today)).toBe(46);
  expect(ageYears(undefined, today)).toBeUndefined();
});

it("does not show more digits than a unit deserves", () => {
  expect(quantityText(13.456, "mm")).toBe("13.5");
  expect(quantityText(0.3456, "1")).toBe("0.35");
  expect(quantityText(5, "mm")).toBe("5");
});
