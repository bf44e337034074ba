/** @file Any tensor as 32-bit floats. */
import { type CheckpointTensor, elements } from "./tensor.ts";

/**
 * A copy of the elements as 32-bit floats, rounded to nearest where the type is wider: integers are
 * exact up to 2^24, and a float64 beyond 3.4e38 becomes infinite. Booleans are 0 and 1, where any byte
 * but 0 is true.
 */
export function toFloat32(tensor: CheckpointTensor): Float32Array {
  const values = elements(tensor);
  if (values instanceof BigInt64Array || values instanceof BigUint64Array) {
    const floats = new Float32Array(values.length);
    for (let i = 0; i < values.length; i++) floats[i] = Number(values[i]);
    return floats;
  }
  const floats = new Float32Array(values);
  return tensor.dtype === "BOOL" ? floats.map((value) => Math.min(value, 1)) : floats;
}
