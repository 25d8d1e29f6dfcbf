/** Who recalled the model behind a result, when and why: read from the Provenance that a recall leaves. Pure. */
import { MODEL_RECALLED, SYSTEM } from "./codes";

export interface Recall {
  who: string | undefined;
  /** FHIR instant; undefined where the recall left the mark alone. */
  when: string | undefined;
  why: string | undefined;
}

const UNSTATED: Recall = { who: undefined, when: undefined, why: undefined };

function isRecall(provenance: fhir4.Provenance): boolean {
  return provenance.activity?.coding?.some((coding) => coding.system === SYSTEM.TAG && coding.code === MODEL_RECALLED) ?? false;
}

/** What is said of the recall of one resource, which carries the tag; the first statement counts. */
export function recallOf(provenances: fhir4.Provenance[], reference: string): Recall {
  const said = provenances
    .filter((item) => isRecall(item) && item.target.some((target) => target.reference?.split("/_history/")[0] === reference))
    .sort((a, b) => Date.parse(a.recorded) - Date.parse(b.recorded))[0];
  if (!said) return UNSTATED;
  const who = said.agent[0]?.who;
  return { who: who?.display ?? who?.reference, when: said.recorded, why: said.reason?.[0]?.text };
}
