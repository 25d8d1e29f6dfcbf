// What granted scopes let an app ask for.
import { maySearch } from "@client/scopes";

it("knows what may be searched", () => {
  expect(maySearch("openid user/*.rs", "Task")).toBe(true);
  expect(maySearch("user/Task.rus user/AuditEvent.rs", "Task")).toBe(true);
  expect(maySearch("user/Task.s?status=ready", "Task")).toBe(true);
});

it("takes nothing else for it", () => {
  for (const scope of ["", "openid", "user/Task.ru", "user/TaskX.rs", "patient/*.rs", "system/*.rs"]) expect(maySearch(scope, "Task")).toBe(false);
});
