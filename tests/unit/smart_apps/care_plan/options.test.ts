// Options as cards: grouped by verdict, doubtful things shown as doubtful.
import { groupOptions, holdsOf, missingInputs, optionOf, planIds } from "@apps/care_plan/options";

const SD = "https://foramen.example/fhir/StructureDefinition";

function plan(id: string, verdict?: string, extension: fhir4.Extension[] = []): fhir4.CarePlan {
  return {
    resourceType: "CarePlan",
    id,
    status: "draft",
    intent: "option",
    subject: {},
    category: [{ coding: [{ system: "https://foramen.example/fhir/CodeSystem/option", code: id }] }],
    extension: [...(verdict ? [{ url: `${SD}/option-verdict`, valueCode: verdict }] : []), ...extension],
  };
}

const rule = (...parts: fhir4.Extension[]): fhir4.Extension => ({ url: `${SD}/rule-verdict`, extension: parts });

it("groups by verdict, eligible first and contraindicated last, keeping the order of the recommendation", () => {
  const options = [plan("O09", "contraindicated"), plan("O06", "eligible"), plan("O12", "not-assessable"), plan("O04", "eligible"), plan("O01", "relatively-contraindicated")].map(optionOf);
  expect(groupOptions(options).map((group) => [group.verdict, group.options.map((option) => option.code)])).toEqual([
    ["eligible", ["O06", "O04"]],
    ["relatively-contraindicated", ["O01"]],
    ["not-assessable", ["O12"]],
    ["contraindicated", ["O09"]],
  ]);
});

it("never takes a missing or unknown verdict for eligible", () => {
  expect(optionOf(plan("O06")).verdict).toBe("not-assessable");
  expect(optionOf(plan("O06", "recommended")).verdict).toBe("not-assessable");
});

it("reads rules with all their sources; what does not claim a source counts as unverified", () => {
  const { rules } = optionOf(
    plan("O06", "eligible", [
      rule({ url: "rule", valueCode: "R34" }, { url: "effect", valueCode: "E" }, { url: "stance", valueCode: "for" }, { url: "text", valueString: "ok" }, { url: "source", valueString: "S-BMJ" }, { url: "source", valueString: "S-LEE07" }, { url: "verification", valueCode: "sourced" }),
      rule({ url: "rule", valueCode: "R42" }, { url: "stance", valueCode: "sideways" }),
    ]),
  );
  expect(rules[0]).toMatchObject({ id: "R34", stance: "for", sources: ["S-BMJ", "S-LEE07"], verification: "sourced" });
  expect(rules[1]).toMatchObject({ id: "R42", stance: "note", sources: [], verification: "unverified" });
});

it("keeps apart the rules that could still speak against, with the facts they wait for", () => {
  const open = rule({ url: "rule", valueCode: "R07" }, { url: "effect", valueCode: "C" }, { url: "stance", valueCode: "open" }, { url: "missing", valueString: "神经根 root" }, { url: "verification", valueCode: "sourced" });
  expect(optionOf(plan("O06", "eligible", [open])).rules).toMatchObject([{ id: "R07", stance: "open", effects: ["C"], missing: ["神经根 root"] }]);
});

it("shows a rule with two effects once", () => {
  const twice = ["E", "PREF+"].map((effect) =>
    rule({ url: "rule", valueCode: "R09" }, { url: "effect", valueCode: effect }, { url: "stance", valueCode: "for" }, { url: "text", valueString: "same" }),
  );
  expect(optionOf(plan("O06", "eligible", twice)).rules).toMatchObject([{ id: "R09", effects: ["E", "PREF+"] }]);
});

it("reads figures with n, setting and source", () => {
  const extension = [{ url: "text", valueString: "3%" }, { url: "n", valueString: "n=6840" }, { url: "setting", valueString: "registry" }, { url: "source", valueString: "S-SOL" }];
  expect(optionOf(plan("O04", "eligible", [{ url: `${SD}/published-figure`, extension }])).figures).toEqual([{ text: "3%", n: "n=6840", setting: "registry", source: "S-SOL" }]);
});

it("reads holds, missing inputs and the order of options", () => {
  const group: fhir4.RequestGroup = {
    resourceType: "RequestGroup",
    status: "draft",
    intent: "proposal",
    extension: [
      { url: `${SD}/hold`, valueString: "R02: 先询问 ask first" },
      { url: `${SD}/hold`, valueString: "no rule named" },
      { url: `${SD}/missing-input`, valueString: "redflag.ces" },
    ],
    action: [{ resource: { reference: "CarePlan/b" } }, { resource: { reference: "CarePlan/a" } }],
  };
  expect(holdsOf(group)).toEqual([{ rule: "R02", text: "先询问 ask first" }, { rule: undefined, text: "no rule named" }]);
  expect(missingInputs(group)).toEqual(["redflag.ces"]);
  expect(planIds(group)).toEqual(["b", "a"]);
});
