// Unanswered is unknown, never false; a saved response comes back as it was.
import { answersOf, FACTS, GROUPS, itemsOf, latestResponse, prefillOf } from "@apps/care_plan/clinical_input";

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

describe("what the form starts with", () => {
  const answers = { "redflag.ces": false, "redflag.other": "none", smoker: true };
  const now = Date.parse("2026-11-22T08:00:00Z");
  const saved = (authored?: string): fhir4.QuestionnaireResponse => ({
    resourceType: "QuestionnaireResponse",
    status: "completed",
    ...(authored ? { authored } : {}),
    item: itemsOf(answers),
  });

  it("keeps red flags up to 14 days", () => {
    expect(prefillOf(saved("2026-11-08T08:00:00Z"), now)).toEqual({ answers, stale: false });
  });

  it.each(["2026-11-08T07:59:59Z", undefined, "not a date"])("asks red flags again when they are from %s", (authored) => {
    expect(prefillOf(saved(authored), now)).toEqual({ answers: { smoker: true }, stale: true });
  });

  it("says nothing where no red flag was answered", () => {
    expect(prefillOf(undefined, now)).toEqual({ answers: {}, stale: false });
    expect(prefillOf({ ...saved("2020-01-01"), item: itemsOf({ smoker: true }) }, now)).toEqual({ answers: { smoker: true }, stale: false });
  });
});

it("takes the newest response that was completed or amended", () => {
  const response = (id: string, status: fhir4.QuestionnaireResponse["status"], authored: string): fhir4.QuestionnaireResponse => ({
    resourceType: "QuestionnaireResponse",
    id,
    status,
    authored,
  });
  const all = [response("a", "completed", "2026-01-01"), response("b", "amended", "2026-02-01"), response("c", "in-progress", "2026-03-01"), response("d", "entered-in-error", "2026-04-01")];
  expect(latestResponse(all)?.id).toBe("b");
  expect(latestResponse(all.slice(2))).toBeUndefined();
});
