/** @file Writes safetensors files. */
import { writeFileAtomic } from "@espalier/base";
import { encodeSafetensors } from "./encode-safetensors.ts";
import type { CheckpointTensor } from "./tensor.ts";

/**
 * Writes tensors so that the name `path` never stands for an incomplete file.
 *
 * @throws EspalierError `disk-full`, or `invalid-argument` as `encodeSafetensors`.
 */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, CheckpointTensor>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  await writeFileAtomic(path, encodeSafetensors(tensors, metadata));
}
