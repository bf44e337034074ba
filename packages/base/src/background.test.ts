import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { startBackground } from "./background.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "background-"));
});
afterEach(() => rm(root, { recursive: true }));

/** A worker that runs `body` for every message. */
async function start(body: string) {
  const path = join(root, "worker.mjs");
  await writeFile(
    path,
    `import { parentPort } from "node:worker_threads";\nparentPort.on("message", ({ id, input }) => { ${body} });\n`,
  );
  return startBackground(
    pathToFileURL(path),
    undefined,
    async (_: undefined, input: number) => input,
  );
}

test("answers come back to whoever asked, in whatever order", async () => {
  const ask = await start(
    "setTimeout(() => parentPort.postMessage({ id, output: 10 * input }), 30 - 10 * input);",
  );
  expect(await Promise.all([ask(0), ask(1), ask(2)])).toEqual([0, 10, 20]);
});

test("what the work throws is told, and the next question answered", async () => {
  const ask = await start(
    'parentPort.postMessage(input < 0 ? { id, error: "below zero" } : { id, output: input });',
  );
  await expect(ask(-1)).rejects.toMatchObject({ code: "runtime", message: "below zero" });
  expect(await ask(3)).toBe(3);
});

test.each([
  ["throws", 'throw new Error("lost");', /lost/],
  ["ends", "process.exit(3);", /worker\.mjs: it ended with 3/],
])("a worker that %s leaves no question open, then or later", async (_, body, message) => {
  const ask = await start(body);
  const both = [ask(1), ask(2)];
  for (const each of both) await expect(each).rejects.toThrow(message);
  await expect(ask(3)).rejects.toThrow(message);
});

test("what cannot be told is refused, and the next question answered", async () => {
  const ask = await start("parentPort.postMessage({ id, output: input });");
  const unsayable = (() => 1) as unknown as number;
  await expect(ask(unsayable)).rejects.toMatchObject({
    code: "runtime",
    message: expect.stringMatching(/worker\.mjs: it could not be told: .*could not be cloned/),
  });
  expect(await ask(4)).toBe(4);
});

test("a process whose worker died in the midst of work ends at once", async () => {
  const path = join(root, "main.mjs");
  const base = new URL("../dist/background.js", import.meta.url).href;
  await writeFile(
    path,
    `import { isMainThread } from "node:worker_threads";
import { serve, startBackground } from ${JSON.stringify(base)};
if (isMainThread) {
  const ask = startBackground(new URL(import.meta.url), undefined, async () => 0);
  await ask(1).catch((error) => console.log(error.message));
} else serve(async () => { setTimeout(() => process.exit(3), 10); await new Promise(() => {}); });
`,
  );
  const begin = performance.now();
  const { stdout } = spawnSync(process.execPath, [path], { encoding: "utf8" });
  expect(stdout).toContain("it ended with 3");
  expect(performance.now() - begin).toBeLessThan(20_000);
});

test("without a built script this thread does the work", async () => {
  const missing = pathToFileURL(join(root, "missing.js"));
  const ask = startBackground(missing, 5, async (data: number, input: number) => data + input);
  expect(await ask(2)).toBe(7);
});
