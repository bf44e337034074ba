/** @file Models for use elsewhere. */

import { join } from "node:path";
import { writeFileAtomic } from "@espalier/base";
import { bindParameters, type Model } from "@espalier/core";
import { exportOnnx } from "@espalier/graph";
import { saveModel } from "./save-model.ts";

/**
 * Writes `config.json`, `model.safetensors`, the files that go with the model and `onnx/model.onnx`
 * (output `logits`, open batch size and length of sequences) into `directory`.
 *
 * @param metadata Properties of the ONNX model.
 */
export async function exportModel(
  model: Model,
  directory: string,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const bytes = exportOnnx(
    (batch, length) => {
      const { graph, constants } = bindParameters(model, batch, "evaluation", length);
      return { outputs: { logits: graph.logits }, constants };
    },
    { metadata },
  );
  await writeFileAtomic(join(directory, "onnx", "model.onnx"), bytes);
  await saveModel(model, directory);
}
