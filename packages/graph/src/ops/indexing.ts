/** @file Index arithmetic shared by the reference semantics of operations. */
import { type Shape, sizeOf } from "../value.ts";

/**
 * Calls `visit` for every index of `shape` in row-major order with one offset per entry of
 * `strides`: the sum of index times stride over the axes.
 */
export function forEachOffset(
  shape: Shape,
  strides: readonly (readonly number[])[],
  visit: (flat: number, offsets: readonly number[]) => void,
): void {
  const total = sizeOf(shape);
  const index = new Array<number>(shape.length).fill(0);
  const offsets = new Array<number>(strides.length).fill(0);
  for (let flat = 0; flat < total; flat++) {
    visit(flat, offsets);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis]++;
      for (let k = 0; k < strides.length; k++) offsets[k] += strides[k][axis];
      if (index[axis] < shape[axis]) break;
      for (let k = 0; k < strides.length; k++) offsets[k] -= strides[k][axis] * shape[axis];
      index[axis] = 0;
    }
  }
}

/** Reads `data` at `offset` + Σ index · stride for every index of `shape`. */
export function readStrided(
  data: Float64Array,
  shape: Shape,
  strides: readonly number[],
  offset = 0,
): Float64Array {
  const result = new Float64Array(sizeOf(shape));
  forEachOffset(shape, [strides], (flat, [position]) => {
    result[flat] = data[offset + position];
  });
  return result;
}
