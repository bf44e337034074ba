/** Measures; see `npm run bench -- --help`. */
import { build, install, runScript } from "./setup.mjs";

install();
build();
process.exitCode = runScript("apps/benchmark/dist/main.js", process.argv.slice(2));
