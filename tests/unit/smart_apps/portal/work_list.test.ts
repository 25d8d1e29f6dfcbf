// Tasks as rows of the worklist.
import { MODEL_RECALLED, SYSTEM } from "@client/codes";
import { recalledQuery, reportIds, taskQuery, workRows } from "@apps/portal/work_list";
import { patientQuery } from "@apps/portal/patient_search";

const task = (id: string, extra: Partial<fhir4.Task>): fhir4.BundleEntry<fhir4.FhirResource> => ({
  resource: { resourceType: "Task", id, status: "requested", intent: "order", ...extra },
  search: { mode: "match" },
});

const bundle = (...entry: fhir4.BundleEntry<fhir4.FhirResource>[]): fhir4.Bundle => ({ resourceType: "Bundle", type: "searchset", entry });

it("joins patient and study that were included", () => {
  const rows = workRows(
    bundle(
      task("t", { status: "completed", for: { reference: "Patient/p" }, focus: { reference: "ImagingStudy/s" }, output: [{ type: {}, valueReference: { reference: "DiagnosticReport/r" } }] }),
      { resource: { resourceType: "Patient", id: "p", identifier: [{ value: "SYN-0001" }] }, search: { mode: "include" } },
      { resource: { resourceType: "ImagingStudy", id: "s", status: "available", subject: {}, description: "Lumbar MR", identifier: [{ system: "urn:dicom:uid", value: "urn:oid:1.2.3" }] } },
    ),
    new Map(),
  );
  expect(rows).toHaveLength(1);
  expect(rows[0]).toMatchObject({ patientId: "p", reportId: "r", description: "Lumbar MR", studyInstanceUid: "1.2.3", synthetic: true });
});

it("shows progress while running, and the reason in words when held, declined or failed", () => {
  const statusReason = { text: "没有匹配的患者" };
  const rows = workRows(
    bundle(
      task("a", { status: "in-progress", businessStatus: { text: "分割" }, statusReason }),
      task("b", { status: "on-hold", statusReason, focus: { identifier: { system: "urn:dicom:uid", value: "urn:oid:1.9" } } }),
      task("c", { status: "completed", statusReason }),
    ),
    new Map(),
  );
  expect(rows.map((row) => row.note)).toEqual(["分割", "没有匹配的患者", undefined]);
  expect(rows[1]).toMatchObject({ patientId: undefined, studyInstanceUid: "1.9" });
});

it("has a declined Task's reason in both languages", () => {
  const coding = [{ system: SYSTEM.TASK_REASON, code: "metal-artefact", display: "Signal voids, as metal leaves them, lie in the spine" }];
  const rows = workRows(
    bundle(
      task("a", { status: "rejected", statusReason: { coding, text: "脊柱内有金属样信号缺失" } }),
      task("b", { status: "completed", statusReason: { coding, text: "脊柱内有金属样信号缺失" } }),
    ),
    new Map(),
  );
  expect(rows.map((row) => [row.note, row.noteEn])).toEqual([
    ["脊柱内有金属样信号缺失", "Signal voids, as metal leaves them, lie in the spine"],
    [undefined, undefined],
  ]);
});

it("asks the server for one page of one kind of task", () => {
  const query = new URLSearchParams(taskQuery("running"));
  expect(query.get("status")).toBe("in-progress");
  expect(query.get("code")).toMatch(/\|analyse-study$/);
  expect(new URLSearchParams(taskQuery("all")).has("status")).toBe(false);
});

it("counts a recalled result among what needs attention, and not among what is done", () => {
  const recalled = `${SYSTEM.TAG}|${MODEL_RECALLED}`;
  const attention = new URLSearchParams(taskQuery("attention"));
  expect(attention.get("_filter")).toBe(
    `status eq on-hold or status eq rejected or status eq failed or business-status eq ${recalled}`,
  );
  expect(attention.has("status")).toBe(false);
  const done = new URLSearchParams(taskQuery("done"));
  expect([done.get("status"), done.get("business-status:not")]).toEqual(["completed", recalled]);
});

it("searches patients by number or by name on the server", () => {
  expect(patientQuery("SYN-0001")).toContainEqual(["identifier", "SYN-0001"]);
  expect(patientQuery(" 张 ")).toContainEqual(["name", "张"]);
  expect(patientQuery("  ").map(([name]) => name)).toEqual(["_sort", "_count"]);
});

it("shows what goes before routine, and asks for it alone", () => {
  const rows = workRows(bundle(task("a", { priority: "stat" }), task("b", { priority: "routine" }), task("c", {})), new Map());
  expect(rows.map((row) => row.priority)).toEqual(["stat", undefined, undefined]);
  const query = new URLSearchParams(taskQuery("expedited"));
  expect(query.get("priority")).toBe("stat,asap,urgent");
  expect(query.has("status")).toBe(false);
  expect(new URLSearchParams(taskQuery("waiting")).has("priority")).toBe(false);
});

it("calls a result recalled whose model was recalled, and never done", () => {
  const output = (id: string) => [{ type: {}, valueReference: { reference: `DiagnosticReport/${id}` } }];
  const page = bundle(
    task("a", { status: "completed", output: output("r1") }),
    task("b", { status: "completed", output: output("r2") }),
    task("c", { status: "in-progress" }),
  );
  expect(reportIds(page)).toEqual(["r1", "r2"]);
  const query = new URLSearchParams(recalledQuery(reportIds(page)));
  expect(query.get("_id")).toBe("r1,r2");
  expect(query.get("_tag")).toBe(`${SYSTEM.TAG}|${MODEL_RECALLED}`);
  const recall = { who: "dr-li", when: "2026-11-23T10:00:00Z", why: "grades too high" };
  const rows = workRows(page, new Map([["r2", recall]]));
  expect(rows.map((row) => [row.status, row.recall])).toEqual([
    ["completed", undefined],
    ["recalled", recall],
    ["in-progress", undefined],
  ]);
});
