/** @file What measurements beside PyTorch have in common. */
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
