// Nothing of another patient is shown in a review.
import { loadRecord } from "@apps/result_review/record";
import { initLanguage } from "@client/i18n";
import type { Session } from "@client/session";
import zh from "@client/locales/zh-CN.json";

beforeAll(async () => {
  vi.stubGlobal("localStorage", { getItem: () => null });
  vi.stubGlobal("document", { documentElement: {} });
  await initLanguage();
});
afterAll(() => vi.unstubAllGlobals());

function sessionWith(reportSubject: string, studySubject: string): Session {
  const stored: Record<string, object> = {
    "DiagnosticReport/r": {
      resourceType: "DiagnosticReport",
      id: "r",
      subject: { reference: reportSubject },
      imagingStudy: [{ reference: "ImagingStudy/s" }],
    },
    "ImagingStudy/s": { resourceType: "ImagingStudy", id: "s", subject: { reference: studySubject } },
  };
  const fhir = {
    read: async (type: string, id: string) => stored[`${type}/${id}`],
    all: async () => [],
    search: async () => ({ resourceType: "Bundle", type: "searchset" }),
  };
  return { fhir } as unknown as Session;
}

it("reads a report and a study of the launch patient", async () => {
  expect((await loadRecord(sessionWith("Patient/1", "Patient/1"), "1", "r")).study?.id).toBe("s");
});

it("refuses a report or a study of another patient", async () => {
  await expect(loadRecord(sessionWith("Patient/2", "Patient/1"), "1", "r")).rejects.toThrow(zh.review.reportOfAnother);
  await expect(loadRecord(sessionWith("Patient/1", "Patient/2"), "1", "r")).rejects.toThrow(zh.review.studyOfAnother);
});
