/** Everything that must hold: types, style, import rules and every test. `npm test`. */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { build, install, root, run, runBin } from "./setup.mjs";

install();
build();
const filters = process.argv.slice(2);
const checks =
  filters.length > 0
    ? []
    : [
        ["types", () => runBin("typescript", "tsc", ["-p", "tsconfig.json"])],
        ["style", () => runBin("@biomejs/biome", "biome", ["check", "."])],
        ["import rules", () => run(process.execPath, ["scripts/check-imports.mjs"])],
      ];
let [passed, failed] = [0, 0];
const broken = [];
for (const [name, check] of checks) {
  if (check() === 0) passed++;
  else broken.push(name);
}
failed += broken.length;
const report = join(root, "node_modules", ".vitest-report.json");
rmSync(report, { force: true });
const status = runBin("vitest", "vitest", [
  "run",
  "--reporter=default",
  "--reporter=json",
  `--outputFile.json=${report}`,
  ...filters,
]);
try {
  const { numPassedTests, numFailedTests, testResults } = JSON.parse(readFileSync(report, "utf8"));
  passed += numPassedTests;
  // A file that could not be loaded has no tests to fail.
  const unloaded = testResults.filter(
    (file) => file.status === "failed" && file.assertionResults.length === 0,
  );
  failed += numFailedTests + unloaded.length;
} catch {
  failed++;
}
if (status !== 0 && failed === 0) failed++;
// At the end, as what a check printed is minutes of tests above.
for (const name of broken) process.stdout.write(`✗ ${name} (npm run check)\n`);
process.stdout.write(`${passed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;
