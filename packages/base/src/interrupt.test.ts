import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, test } from "vitest";

const built = new URL("../dist/interrupt.js", import.meta.url).href;
const script = (body: string) => `
import { onInterrupt } from ${JSON.stringify(built)};
const timer = setTimeout(() => {}, 20_000);
const forget = onInterrupt(() => console.log("stopping"));
${body}
console.log("ready");
`;

async function start(body: string) {
  const args = ["--input-type=module", "--eval", script(body)];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  child.stdout.setEncoding("utf8");
  expect(String(await once(child.stdout, "data"))).toBe("ready\n");
  return child;
}

test.each(["SIGINT", "SIGTERM"] as const)("the second %s ends a process", async (signal) => {
  const child = await start("");
  child.kill(signal);
  expect(String(await once(child.stdout, "data"))).toBe("stopping\n");
  child.kill(signal);
  expect(await once(child, "exit")).toEqual([null, signal]);
});

test("forgotten, the first one does", async () => {
  const child = await start("forget();");
  child.kill("SIGINT");
  expect(await once(child, "exit")).toEqual([null, "SIGINT"]);
});
