/** @file Strided windows on memory. */

/** A window on elements; offset and strides count elements. */
export interface Window {
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

/** Index after the last element that a window touches. Inexact only where beyond any memory. */
export function windowEnd({ offset, shape, strides }: Window): number {
  if (shape.includes(0)) return offset;
  return shape.reduce((end, size, axis) => end + (size - 1) * strides[axis]!, offset + 1);
}

/** Whether the elements lie one after another in C order. */
export function isContiguous({ shape, strides }: Window): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== expected) return false;
    expected *= shape[axis]!;
  }
  return true;
}

/**
 * Copies a window to `target` in C order.
 *
 * @param source Memory that holds the whole window, aligned to elements of `bytes` bytes.
 * @param target Memory for the elements of the window, aligned likewise.
 */
export function gather(
  source: Uint8Array,
  target: Uint8Array,
  bytes: 1 | 2 | 4 | 8,
  window: Window,
): void {
  const axes = mergeAxes(window);
  const from = integers(source, bytes);
  const to = integers(target, bytes);
  let next = 0;
  const copy = (axis: number, start: number) => {
    const { size, stride } = axes[axis]!;
    if (axis < axes.length - 1) {
      for (let i = 0; i < size; i++) copy(axis + 1, start + i * stride);
    } else {
      for (let i = 0; i < size; i++) to[next++] = from[start + i * stride]!;
    }
  };
  copy(0, window.offset);
}

/**
 * As few axes as walk through the same elements in the same order, one at least: axes of size 1 would
 * cost a call for every element, and a file may have dozens of them.
 */
function mergeAxes({ shape, strides }: Window): { size: number; stride: number }[] {
  const axes: { size: number; stride: number }[] = [];
  for (const [axis, size] of shape.entries()) {
    const stride = strides[axis]!;
    const last = axes.at(-1);
    if (size === 1) continue;
    if (last?.stride === size * stride) Object.assign(last, { size: last.size * size, stride });
    else axes.push({ size, stride });
  }
  return axes.length > 0 ? axes : [{ size: 1, stride: 0 }];
}

/** Integers, since copying floats may change the bits of a NaN. */
function integers({ buffer, byteOffset, byteLength }: Uint8Array, bytes: 1 | 2 | 4 | 8) {
  const type = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array }[bytes];
  // All elements pass through one assignment, for which bigint and number are alike.
  return new type(buffer as ArrayBuffer, byteOffset, Math.floor(byteLength / bytes)) as Uint8Array;
}
