// Makes one script and one style sheet of the page and of what it imports.
import { resolve } from "node:path";
import { build } from "esbuild";

const assets = ["svg", "ttf", "woff", "woff2", "png"].map((kind) => [`.${kind}`, "dataurl"]);
await build({
  entryPoints: ["page.jsx"],
  outfile: "page.js",
  bundle: true,
  format: "iife",
  jsx: "automatic",
  logLevel: "error",
  loader: Object.fromEntries(assets),
  alias: { "react-custom-scrollbars-2": resolve("scrollbars.js") },
  define: { "process.env.NODE_ENV": '"production"', global: "window" },
});
