/** Measures the benchmark tables; see `npm run benchmark -- --help`. */
import { join } from "node:path";
import { build, install, root, run } from "./setup.mjs";

install();
build();
process.exitCode = run(process.execPath, [
  join(root, "apps", "benchmark", "dist", "tables", "main.js"),
  ...process.argv.slice(2),
]);
