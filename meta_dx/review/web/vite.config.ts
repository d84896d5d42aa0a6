import { fileURLToPath } from "node:url";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** Changes one line of a dependency; the build fails when that line is no longer there. */
function mend(name: string, file: string, from: string | null, to: string): Plugin {
  let found = false;
  return {
    name,
    enforce: "pre",
    apply: "build",
    transform(code, id) {
      if (!id.endsWith(file)) return null;
      if (from !== null && !code.includes(from)) this.error(`${file} has changed: look at '${name}' again`);
      found = true;
      return { code: from === null ? to : code.replace(from, to), map: null };
    },
    buildEnd(error) {
      if (!error && !found) this.error(`${file} is not part of the build: drop '${name}'`);
    },
  };
}

export default defineConfig({
  base: "./",
  publicDir: false,
  plugins: [
    // A style attribute set by a script is forbidden by `style-src 'self'`, the style object is not.
    mend(
      "text-boxes-without-style-attribute",
      "drawingSvg/drawTextBox.js",
      "textElement.setAttribute('style', combinedStyle)",
      "textElement.style.cssText = combinedStyle",
    ),
    // The only worker belongs to segmentation, which this viewer does not have.
    mend(
      "no-compute-worker",
      "utilities/registerComputeWorker.js",
      null,
      "export function registerComputeWorker() { throw new Error('no compute worker in this build'); }",
    ),
    // Meshes are drawn nowhere here, and reading them brings an XML library along.
    mend("no-mesh-reader", "IO/XML/XMLPolyDataReader.js", null, "export default { newInstance() { throw new Error('no mesh reader in this build'); } };"),
    // Rules that sort DICOM objects into series need the dictionary of a parser; here the server has done that.
    mend(
      "no-display-set-rules",
      "displayset/compiledDisplaySetRules.js",
      null,
      "export const compiledDisplaySetRules = undefined; export const defaultDisplaySetSplitRules = undefined;",
    ),
    // htmx is set up to evaluate nothing (src/app/htmx.ts); like this there is no eval in the build at all.
    mend("no-eval", "htmx.esm.js", "return eval(str)", "throw new Error('nothing is evaluated')"),
  ],
  build: {
    outDir: "../static",
    emptyOutDir: true,
    manifest: "manifest.json",
    license: { fileName: "licenses.md" },
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 4000,
    reportCompressedSize: false,
    rollupOptions: { input: { main: here("./src/main.ts") } },
  },
  test: { include: ["test/**/*.test.ts"], environment: "node" },
});
