/** @file Models as directories: `config.json` and `model.safetensors`. */

import { join } from "node:path";
import { writeFileAtomic, writeJsonAtomic } from "@espalier/base";
import { float32Tensor, writeSafetensors } from "@espalier/checkpoints";
import type { Model } from "@espalier/core";

const CONFIG = "config.json";
const WEIGHTS = "model.safetensors";

/** The files of a saved model that say what it computes. */
export function modelFiles(directory: string): string[] {
  return [`${directory}/${CONFIG}`, `${directory}/${WEIGHTS}`];
}

/** Writes `model` so that it can be loaded from `directory` alone. */
export async function saveModel(model: Model, directory: string): Promise<void> {
  await saveWeights(model, directory);
  for (const [name, bytes] of model.files ?? []) {
    await writeFileAtomic(join(directory, name), bytes);
  }
  await writeJsonAtomic(join(directory, CONFIG), model.config);
}

/** Writes the parameters of `model` as `model.safetensors`. */
export async function saveWeights(model: Model, directory: string): Promise<void> {
  const tensors = new Map(
    [...model.parameters].map(([name, { shape, data }]) => [name, float32Tensor(shape, data)]),
  );
  // "pt" tells readers of the safetensors format how tensors are named and laid out.
  await writeSafetensors(join(directory, WEIGHTS), tensors, { format: "pt" });
}
