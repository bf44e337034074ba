/** @file What the entries of the table of kernels share. */
import { type Shape, sameShape, sizeOf, type Value } from "@espalier/graph";
import {
  concat,
  gather,
  matMul,
  pad,
  range,
  reshape,
  slice,
  stridedSlice,
  type Tensor,
  broadcastTo as tileTo,
  transpose,
} from "@tensorflow/tfjs-core";

/** What distinguishes TensorFlow.js's backends for the kernels. */
export interface Capabilities {
  /** TensorFlow.js's own kernels that are worth calling; what others do is composed. */
  readonly fast: ReadonlySet<string>;
}

/** Computes one value of a graph. What it allocates besides the result is freed by the caller. */
export type Kernel = (
  operands: readonly Tensor[],
  value: Value,
  capabilities: Capabilities,
) => Tensor;

export function shapeOf(x: Tensor): number[] {
  return x.shape;
}

/** [N, C, H, W] as [N, H, W, C], the layout that all backends convolve. */
export function channelsLast(x: Tensor): Tensor {
  return transpose(x, [0, 2, 3, 1]);
}

/** [N, H, W, C] as [N, C, H, W]. */
export function channelsFirst(x: Tensor): Tensor {
  return transpose(x, [0, 3, 1, 2]);
}

/** Elements `starts`, `starts` + `steps`, … before `ends`, on every axis. */
export function strided(
  x: Tensor,
  starts: readonly number[],
  ends: readonly number[],
  steps: readonly number[],
): Tensor {
  if (x.dtype === "float32" && steps.some((step) => step > 1)) {
    return stridedSlice(x, [...starts], [...ends], [...steps]);
  }
  const whole = slice(
    x,
    [...starts],
    ends.map((end, axis) => end - starts[axis]),
  );
  // WebAssembly's strided slices are of floats alone.
  return steps.reduce(
    (rest, step, axis) =>
      step > 1 ? gather(rest, range(0, rest.shape[axis], step, "int32"), axis) : rest,
    whole,
  );
}

/** `value` before, after and between the elements of every axis. */
export function padded(
  x: Tensor,
  before: readonly number[],
  after: readonly number[],
  interior: readonly number[] = [],
  value = 0,
): Tensor {
  let result = x;
  interior.forEach((gap, axis) => {
    if (gap === 0) return;
    // [n] as [n, 1 + gap], flattened, less the last gap.
    const { shape } = result;
    const [outer, inner] = [sizeOf(shape.slice(0, axis)), sizeOf(shape.slice(axis + 1))];
    const n = shape[axis];
    const spread = pad(
      reshape(result, [outer * n, inner]),
      [
        [0, 0],
        [0, gap * inner],
      ],
      value,
    );
    const whole = reshape(spread, [outer, n * (1 + gap), inner]);
    const cropped = slice(whole, [0, 0, 0], [outer, n * (1 + gap) - gap, inner]);
    result = reshape(cropped, [
      ...shape.slice(0, axis),
      n * (1 + gap) - gap,
      ...shape.slice(axis + 1),
    ]);
  });
  if ([...before, ...after].every((n) => n === 0)) return result;
  return pad(
    result,
    before.map((n, axis): [number, number] => [n, after[axis]]),
    value,
  );
}

// Below so many multiply-accumulates the overhead of a call outweighs what a fast product saves.
const LARGE_PRODUCT = 2 ** 15;

/** Matrix products of the last two axes; the others broadcast. */
export function product(a: Tensor, b: Tensor, shape: Shape, { fast }: Capabilities): Tensor {
  const [m, k] = a.shape.slice(-2);
  const n = b.shape[b.shape.length - 1];
  const batch = shape.slice(0, -2);
  if (sizeOf(b.shape.slice(0, -2)) === 1) {
    const rows = reshape(a, [sizeOf(a.shape) / k, k]);
    return reshape(matMul(rows, reshape(b, [k, n])), [...shape]);
  }
  const all = (x: Tensor) => {
    const whole = [...batch, ...x.shape.slice(-2)];
    const repeated = sameShape(x.shape, whole) ? x : tileTo(x, whole);
    return reshape(repeated, [sizeOf(batch), ...x.shape.slice(-2)]);
  };
  const [left, right] = [all(a), all(b)];
  if (fast.has("BatchMatMul") || m * k * n < LARGE_PRODUCT) {
    return reshape(matMul(left, right), [...shape]);
  }
  const products = Array.from({ length: sizeOf(batch) }, (_, i) =>
    matMul(
      reshape(slice(left, [i, 0, 0], [1, m, k]), [m, k]),
      reshape(slice(right, [i, 0, 0], [1, k, n]), [k, n]),
    ),
  );
  return reshape(concat(products, 0), [...shape]);
}
