// The pure middle is tested without a browser; what a clinician sees is tested in real Chromium (tests/e2e).
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const root = dirname(fileURLToPath(import.meta.url));

export default defineConfig({
  root: resolve(root, ".."),
  resolve: { alias: { "@client": resolve(root, "smart_client"), "@apps": root } },
  test: { globals: true, include: ["tests/unit/smart_apps/**/*.test.ts"], environment: "node", pool: "threads", maxWorkers: 2, cache: false },
});
