// One build for all apps: each app is a page, shared code is split by the bundler, every text file is compressed once.
import react from "@vitejs/plugin-react";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

const root = dirname(fileURLToPath(import.meta.url));
const page = (name: string) => resolve(root, name, "index.html");

/** Writes `.br` and `.gz` beside every text asset, so that the server never compresses while a clinician waits. */
function precompress(): Plugin {
  return {
    name: "precompress",
    apply: "build",
    closeBundle() {
      const folder = resolve(root, "dist", "assets");
      for (const name of readdirSync(folder)) {
        if (!/\.(js|css|svg|json|wasm)$/.test(name)) continue;
        const file = join(folder, name);
        if (statSync(file).size < 1024) continue;
        const bytes = readFileSync(file);
        writeFileSync(`${file}.gz`, gzipSync(bytes, { level: 9 }));
        writeFileSync(`${file}.br`, brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 8 } }));
      }
    },
  };
}

export default defineConfig({
  root,
  base: "/apps/",
  plugins: [react(), precompress()],
  resolve: { alias: { "@client": resolve(root, "smart_client") } },
  worker: { format: "es" },
  optimizeDeps: { exclude: ["@cornerstonejs/dicom-image-loader"], include: ["dicom-parser"] },
  build: {
    outDir: "dist",
    emptyOutDir: true,
    target: "es2022",
    sourcemap: false,
    chunkSizeWarningLimit: 6000,
    rolldownOptions: {
      input: { portal: page("portal"), result_review: page("result_review"), care_plan: page("care_plan") },
    },
  },
});
