/** @file Samples in documents are programs that type-check. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, expect, test } from "vitest";

const root = fileURLToPath(new URL("../../..", import.meta.url));
// Inside, so that packages are found.
const cache = join(root, "node_modules/.cache");
await mkdir(cache, { recursive: true });
const directory = await mkdtemp(join(cache, "samples-"));
afterAll(() => rm(directory, { recursive: true, force: true }));

/** What type-checking says of `programs`, by their names. */
async function check(programs: ReadonlyMap<string, string>): Promise<string> {
  for (const [name, text] of programs) await writeFile(join(directory, name), text);
  const config = {
    extends: join(root, "tsconfig.package.json"),
    compilerOptions: { noUnusedLocals: false },
    files: [...programs.keys()],
  };
  await writeFile(join(directory, "tsconfig.json"), JSON.stringify(config));
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  return promisify(execFile)(process.execPath, [tsc, "-p", directory]).then(
    ({ stdout }) => stdout,
    (error: { stdout: string }) => error.stdout,
  );
}

test("every sample of a README is a program by itself", async () => {
  const packages = (await readdir(join(root, "packages"))).map((name) => `packages/${name}`);
  const programs = new Map<string, string>();
  for (const folder of [".", "apps/cli", ...packages]) {
    const text = await readFile(join(root, folder, "README.md"), "utf8").catch(() => "");
    const samples = text.matchAll(/^```(?:ts|js)\n(.*?)^```$/gms);
    let count = 0;
    for (const [, sample] of samples) {
      const name = `${folder.replaceAll("/", "-")}-${++count}.ts`;
      // A module, whose variables are its own.
      programs.set(name, `${sample}\nexport {};\n`);
    }
  }
  expect(programs.size).toBeGreaterThan(8);
  expect(await check(programs)).toBe("");
});
