/** @file Refuses tensors that are not finite. */
import { EspalierError, quote } from "@espalier/base";
import { type CheckpointTensor, elements } from "./tensor.ts";

/**
 * `name` and `path` are what the error calls the tensor and the file it came from.
 *
 * @throws EspalierError `not-finite`, naming the first element that is NaN or infinite.
 */
export function assertFinite(tensor: CheckpointTensor, name: string, path: string): void {
  const values = elements(tensor);
  if (!(values instanceof Float32Array || values instanceof Float64Array)) return;
  for (let index = 0; index < values.length; index++) {
    const value = values[index]!;
    if (!Number.isFinite(value)) {
      throw new EspalierError(
        "not-finite",
        `${path}: tensor ${quote(name)}: expected finite numbers, got ${value} as element ${index} of ${values.length}`,
        { path, tensor: name, index, value },
      );
    }
  }
}
