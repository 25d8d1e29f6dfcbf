// Unanswered is unknown, never false; a saved response comes back as it was.
import { answersOf, FACTS, GROUPS, itemsOf } from "@apps/care_plan/clinical_input";

it("asks the red flags first", () => {
  expect(GROUPS[0]?.facts[0]?.id).toBe("redflag.ces");
});

it("leaves out what was not answered", () => {
  expect(itemsOf({})).toEqual([]);
  expect(itemsOf({ smoker: false }).map((item) => item.linkId)).toEqual(["smoker"]);
});

it("brings every kind of answer back", () => {
  const answers = { "redflag.ces": false, "redflag.other": "tumour", "exam.motor": 0, duration_weeks: 6.5 };
  const response: fhir4.QuestionnaireResponse = { resourceType: "QuestionnaireResponse", status: "completed", item: itemsOf(answers) };
  expect(answersOf(response)).toEqual(answers);
});

it("ignores items it does not know, and an item without an answer", () => {
  const item = [{ linkId: "shoe-size", answer: [{ valueInteger: 42 }] }, { linkId: "smoker" }];
  expect(answersOf({ resourceType: "QuestionnaireResponse", status: "completed", item })).toEqual({});
  expect(FACTS["shoe-size"]).toBeUndefined();
});
