/** @file Models for use elsewhere. */

import { join } from "node:path";
import { writeFileAtomic } from "@espalier/base";
import { bindParameters, type Model } from "@espalier/core";
import { exportOnnx } from "@espalier/graph";
import { saveModel } from "./save-model.ts";

/**
 * Writes `config.json`, `model.safetensors` and `onnx/model.onnx` (input `pixel_values`, output
 * `logits`, open batch size) into `directory`.
 *
 * @param metadata Properties of the ONNX model.
 */
export async function exportModel(
  model: Model,
  directory: string,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const bytes = exportOnnx(
    (batch) => {
      const { graph, constants } = bindParameters(model, batch, "evaluation");
      return { outputs: { logits: graph.logits }, constants };
    },
    { metadata },
  );
  await writeFileAtomic(join(directory, "onnx", "model.onnx"), bytes);
  await saveModel(model, directory);
}
