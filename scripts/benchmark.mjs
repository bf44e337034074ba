/** Measures the benchmark tables; see `npm run benchmark -- --help`. */
import { build, install, runScript } from "./setup.mjs";

install();
build();
process.exitCode = runScript("apps/benchmark/dist/tables/main.js", process.argv.slice(2));
