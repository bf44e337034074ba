/** @file Runs the built command on a network and a data set so small that it takes seconds. */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Random } from "@espalier/core";
import { saveModel } from "@espalier/pipeline";
import { tinyResNet } from "@espalier/vision/testing";

export const main = fileURLToPath(new URL("../bin/espalier.js", import.meta.url));

export interface Finished {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Starts `espalier args`; `done` settles when it has ended. */
export function start(
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv; shell?: string } = {},
): { child: ChildProcess; done: Promise<Finished> } {
  if (!existsSync(main)) throw new Error(`${main} is not built: npm run build`);
  const child =
    options.shell === undefined
      ? spawn(process.execPath, [main, ...args], { ...options, shell: false })
      : spawn("sh", ["-c", `${options.shell}; exec "$0" "$@"`, process.execPath, main, ...args]);
  const texts = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name]?.setEncoding("utf8").on("data", (text: string) => {
      texts[name] += text;
    });
  }
  const done = new Promise<Finished>((resolve) => {
    child.on("close", (code, signal) => resolve({ code, signal, ...texts }));
  });
  return { child, done };
}

export function espalier(...args: string[]): Promise<Finished> {
  return start(args).done;
}

/** A directory that holds `model`, `data`, and whatever tests put there. */
export async function makeWorkspace(): Promise<{ path: string; remove(): Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), "espalier-cli-"));
  await saveModel(tinyResNet({ size: 32, classes: 10, widths: [4, 6, 8] }), join(path, "model"));
  await writeRecords(join(path, "data"), 60);
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

/** Files in CIFAR-10's format: `count` images each, whose brightness tells their class. */
export async function writeRecords(directory: string, count: number): Promise<void> {
  await mkdir(directory, { recursive: true });
  const random = new Random("records");
  for (const name of [1, 2, 3, 4, 5].map((n) => `data_batch_${n}.bin`).concat("test_batch.bin")) {
    const bytes = new Uint8Array(count * 3073);
    const noise = random.stream(name);
    for (let record = 0; record < count; record++) {
      const label = record % 10;
      bytes[record * 3073] = label;
      for (let i = 1; i < 3073; i++) {
        const stripe = Math.floor((i - 1) / 32) % 10 === label ? 120 : 0;
        bytes[record * 3073 + i] = stripe + noise.integer(100);
      }
    }
    await writeFile(join(directory, name), bytes);
  }
}

// These hold measured times, and so does all that is made from them.
const measured = /^(latency\.json|report\.html|README\.md|summary\.json)$/;

/** A digest of every file of a run that must not depend on when and how often it was stopped. */
export async function digests(directory: string): Promise<Record<string, string>> {
  const result: Record<string, string> = {};
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  for (const entry of entries) {
    if (!entry.isFile() || measured.test(entry.name)) continue;
    const path = join(entry.parentPath, entry.name);
    const digest = createHash("sha256")
      .update(await readFile(path))
      .digest("hex");
    result[path.slice(directory.length + 1)] = digest;
  }
  return result;
}
