/** @file What measurements beside PyTorch have in common. */
import { spawnSync } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { encodeNpy, float32Tensor } from "@espalier/checkpoints";
import type { Parameters } from "@espalier/core";

export const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

export async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

/** Writes one array as `NAME.npy` into `directory`. */
export async function writeArray(
  directory: string,
  name: string,
  shape: readonly number[],
  data: ArrayLike<number>,
): Promise<void> {
  await mkdir(directory, { recursive: true });
  const tensor = float32Tensor(shape, Float32Array.from(data));
  await writeFile(join(directory, `${name}.npy`), encodeNpy(tensor));
}

/** Writes all parameters into the folder `parameters` of `directory`. */
export async function writeParameters(directory: string, parameters: Parameters): Promise<void> {
  for (const [name, { shape, data }] of parameters) {
    await writeArray(join(directory, "parameters"), name, shape, data);
  }
}

/** What others' programs run in: ours without what is set for our own (decision 033). */
export function peerEnvironment(): NodeJS.ProcessEnv {
  const ours = ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX"];
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !ours.includes(name)));
}

/**
 * Runs a script of `benchmarks/peers` and reads the JSON that it prints; undefined where there is no
 * such `python`, or none with PyTorch.
 */
export function runPeer<Result>(
  python: string,
  script: string,
  args: readonly string[],
): Result | undefined {
  const path = new URL(`../../../benchmarks/peers/${script}`, import.meta.url).pathname;
  const { stdout, stderr, status, error } = spawnSync(python, [path, ...args], {
    encoding: "utf8",
    env: peerEnvironment(),
  });
  if (error !== undefined || stderr.includes("ModuleNotFoundError")) return undefined;
  if (status !== 0) throw new Error(`${script}: ${stderr}`);
  return JSON.parse(stdout) as Result;
}

/** Runs one of the scripts beside this one in a process of its own, so that its peak memory is its own. */
export function runProcess<Result>(script: string, args: readonly string[]): Result {
  const path = new URL(script, import.meta.url).pathname;
  const { stdout, status } = spawnSync(process.execPath, [...process.execArgv, path, ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (status !== 0) throw new Error(`${script} failed`);
  return JSON.parse(stdout) as Result;
}
