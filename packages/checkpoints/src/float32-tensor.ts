/** @file A tensor of 32-bit floats. */
import { EspalierError } from "@espalier/base";
import { type CheckpointTensor, elementCount } from "./tensor.ts";

/**
 * A float32 tensor over the memory of `data`, which is not copied.
 *
 * @throws EspalierError `invalid-argument` where `data` does not fill `shape`.
 */
export function float32Tensor(shape: readonly number[], data: Float32Array): CheckpointTensor {
  if (elementCount(shape) !== data.length) {
    throw new EspalierError(
      "invalid-argument",
      `expected the elements of a tensor of shape [${shape}], got ${data.length}`,
      { shape, elements: data.length },
    );
  }
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return { dtype: "F32", shape, data: bytes };
}
