/** @file Operations that move data without computing: each is linear, and the adjoint of another. */

import { type AxisChannels, type Coupling, ZERO } from "../coupling.ts";
import {
  apply,
  expectInputs,
  normalizeAxes,
  normalizeAxis,
  type Operation,
  type Shape,
  sameShape,
  sizeOf,
  stridesOf,
  type Value,
} from "../value.ts";
import { forEachOffset, readStrided } from "./indexing.ts";
import { integers, isConstant, scalar } from "./leaf.ts";

// --- reshape ---

export const reshapeOperation: Operation<{ shape: Shape }> = {
  name: "reshape",
  multilinear: true,
  semantics: "the same elements, row-major, under another shape",
  infer: ([x], { shape }) => {
    expectInputs(sizeOf(x.shape) === sizeOf(shape), "reshape", `as many elements as [${shape}]`, [
      x,
    ]);
    return { shape, dtype: x.dtype };
  },
  evaluate: ([x]) => x.data,
  vjp: (value, cotangent) => [reshape(cotangent, value.inputs[0].shape)],
  jvp: (value, [tangent]) => tangent && reshape(tangent, value.shape),
  onnx: (builder, [x], value) => builder.reshape(x, value.inputs[0].shape, value.shape),
  pytorch: ([x], { shape }, { sizes }) => `${x}.reshape(${sizes(shape)})`,
  couple: (value, [axes], coupling) =>
    coupleReshape(value.inputs[0].shape, value.shape, axes, coupling),
  simplify: (value) => {
    const [x] = value.inputs;
    if (sameShape(x.shape, value.shape)) return x;
    return x.operation === reshapeOperation ? reshape(x.inputs[0], value.shape) : undefined;
  },
};

/**
 * Axes are matched in runs of equal products. Of a run that merges or splits, only one axis of the
 * input may have channels; where a channel is spread over several indices of an axis they move
 * together.
 */
function coupleReshape(
  from: Shape,
  to: Shape,
  axes: readonly AxisChannels[],
  coupling: Coupling,
): AxisChannels[] {
  const result = new Array<AxisChannels>(to.length).fill(undefined);
  for (let [i, j] = [0, 0]; i < from.length || j < to.length; ) {
    const [firstIn, firstOut] = [i, j];
    let [inputs, outputs] = [from[i++] ?? 1, to[j++] ?? 1];
    while (inputs !== outputs) {
      if (inputs < outputs) inputs *= from[i++];
      else outputs *= to[j++];
    }
    const sources = Array.from({ length: i - firstIn }, (_, k) => firstIn + k);
    const labelled = sources.filter((axis) => axis < from.length && axes[axis] !== undefined);
    const targets = Array.from({ length: j - firstOut }, (_, k) => firstOut + k);
    const lengths = targets.filter((axis) => axis < to.length);
    if (labelled.length === 0) continue;
    const large = labelled.filter((axis) => from[axis] > 1);
    if (large.length > 1 || lengths.length === 0) {
      for (const axis of labelled) coupling.fix(axes[axis]);
      continue;
    }
    const [source] = large.length === 1 ? large : labelled;
    const channels = axes[source]!;
    // The stride of the source axis within the run, and of the target that takes its channels.
    const inner = sizeOf(from.slice(source + 1, i));
    const whole = lengths.filter((axis) => sizeOf(to.slice(axis, j)) >= inner * channels.length);
    const target = whole.at(-1) ?? lengths[0];
    const targetInner = sizeOf(to.slice(target + 1, j));
    const runs = sizeOf(from.slice(firstIn, source));
    const labels = new Int32Array(to[target]).fill(ZERO);
    for (let flat = 0; flat < inputs; flat++) {
      const channel = channels[Math.floor(flat / inner) % channels.length];
      const position = Math.floor(flat / targetInner) % to[target];
      if (labels[position] === ZERO) labels[position] = channel;
      else coupling.uniteChannels(labels[position], channel);
    }
    if (runs > 1 && to[target] % channels.length !== 0) coupling.fix(channels);
    result[target] = labels;
  }
  return result;
}

export function reshape(x: Value, shape: Shape): Value {
  return sameShape(x.shape, shape) ? x : apply(reshapeOperation, [x], { shape: [...shape] });
}

// --- broadcastTo and sum: adjoint to each other ---

/**
 * The axis of a result along which an operand broadcast to it varies, as a bias does: its last, or of an
 * operand of one number its first.
 */
export function broadcastRowAxis({ shape, inputs }: Value, input: number): number {
  const operand = inputs[input].shape;
  const lead = shape.length - operand.length;
  const axis = shape.findLastIndex((n, k) => operand[k - lead] === n && n > 1);
  return axis < 0 ? lead : axis;
}

export const broadcastOperation: Operation<{ shape: Shape }> = {
  name: "broadcastTo",
  rowAxis: broadcastRowAxis,
  semantics: "repeats along axes of size 1, or along new leading axes, as NumPy does",
  infer: ([x], { shape }) => {
    const lead = shape.length - x.shape.length;
    expectInputs(
      lead >= 0 && x.shape.every((n, axis) => n === shape[lead + axis] || n === 1),
      "broadcastTo",
      `a shape that broadcasts to [${shape}]`,
      [x],
    );
    return { shape, dtype: x.dtype };
  },
  evaluate: ([x], { shape }) => readStrided(x.data, shape, broadcastStrides(x.shape, shape)),
  vjp: (value, cotangent) => [sumTo(cotangent, value.inputs[0].shape)],
  jvp: (value, [tangent]) => tangent && broadcastTo(tangent, value.shape),
  onnx: (builder, [x], value) => builder.node("Expand", [x, builder.ints(value.shape)]),
  pytorch: ([x], { shape }, { sizes }) => `${x}.expand(${sizes(shape)})`,
  couple: ({ shape, inputs: [x] }, [axes], coupling) => {
    const lead = shape.length - x.shape.length;
    return shape.map((size, axis) => {
      const own = axis < lead ? undefined : axes[axis - lead];
      if (axis >= lead && x.shape[axis - lead] === size) return own;
      coupling.fix(own);
      return undefined;
    });
  },
  simplify: (value) =>
    sameShape(value.shape, value.inputs[0].shape) ? value.inputs[0] : undefined,
};

export function broadcastTo(x: Value, shape: Shape): Value {
  return sameShape(x.shape, shape) ? x : apply(broadcastOperation, [x], { shape: [...shape] });
}

/** Strides that read a tensor of shape `from` as if it had shape `to`. */
export function broadcastStrides(from: Shape, to: Shape): number[] {
  const lead = to.length - from.length;
  const strides = stridesOf(from);
  return to.map((_, axis) => (axis < lead || from[axis - lead] === 1 ? 0 : strides[axis - lead]));
}

/** Zeros (or another value) of any shape, held as one element. */
export function full(shape: Shape, value: number): Value {
  return broadcastTo(scalar(value), shape);
}

interface ReduceAttributes {
  readonly axes: readonly number[];
  readonly keepDimensions: boolean;
}

function reducedShape(shape: Shape, { axes, keepDimensions }: ReduceAttributes): Shape {
  return keepDimensions
    ? shape.map((dimension, axis) => (axes.includes(axis) ? 1 : dimension))
    : shape.filter((_, axis) => !axes.includes(axis));
}

export const sumOperation: Operation<ReduceAttributes> = {
  name: "sum",
  multilinear: true,
  semantics: "adds up along axes",
  infer: ([x], attributes) => {
    expectInputs(x.dtype === "float32", "sum", "float32", [x]);
    return { shape: reducedShape(x.shape, attributes), dtype: x.dtype };
  },
  evaluate: ([x], value) => {
    const { axes } = value.attributes;
    const kept = reducedShape(x.shape, { axes, keepDimensions: true });
    const result = new Float64Array(sizeOf(value.shape));
    forEachOffset(x.shape, [broadcastStrides(kept, x.shape)], (flat, [position]) => {
      result[position] += x.data[flat];
    });
    return result;
  },
  vjp: (value, cotangent) => {
    const [x] = value.inputs;
    const kept = reducedShape(x.shape, { ...value.attributes, keepDimensions: true });
    return [broadcastTo(reshape(cotangent, kept), x.shape)];
  },
  jvp: (value, [tangent]) => tangent && apply(sumOperation, [tangent], value.attributes),
  onnx: (builder, [x], { attributes: { axes, keepDimensions } }) =>
    builder.node("ReduceSum", [x, builder.ints(axes)], { keepdims: keepDimensions ? 1 : 0 }),
  pytorch: ([x], { attributes: { axes, keepDimensions } }) =>
    `${x}.sum(dim=[${axes.join(", ")}]${keepDimensions ? ", keepdim=True" : ""})`,
  couple: ({ attributes: { axes, keepDimensions } }, [x]) =>
    keepDimensions
      ? x.map((channels, axis) => (axes.includes(axis) ? undefined : channels))
      : x.filter((_, axis) => !axes.includes(axis)),
  simplify: (value) => {
    const [x] = value.inputs;
    return value.attributes.axes.every((axis) => x.shape[axis] === 1)
      ? reshape(x, value.shape)
      : undefined;
  },
};

/** Sum over `axes` (default: all). */
export function sum(x: Value, axes?: readonly number[], keepDimensions = false): Value {
  const normalized = normalizeAxes(axes, x.shape.length, "sum");
  if (normalized.length === 0) return x;
  return apply(sumOperation, [x], { axes: normalized, keepDimensions });
}

/** The adjoint of broadcasting: sums so that the result has `shape`. */
export function sumTo(x: Value, shape: Shape): Value {
  const lead = x.shape.length - shape.length;
  const axes = x.shape.flatMap((dimension, axis) =>
    axis < lead || (shape[axis - lead] === 1 && dimension !== 1) ? [axis] : [],
  );
  return reshape(sum(x, axes, true), shape);
}

// --- transpose ---

export const transposeOperation: Operation<{ permutation: readonly number[] }> = {
  name: "transpose",
  multilinear: true,
  semantics: "axis i of the result is axis permutation[i] of the input",
  infer: ([x], { permutation }) => {
    expectInputs(
      [...permutation].sort((a, b) => a - b).every((axis, i) => axis === i) &&
        permutation.length === x.shape.length,
      "transpose",
      `a tensor that the permutation [${permutation}] fits`,
      [x],
    );
    return { shape: permutation.map((axis) => x.shape[axis]), dtype: x.dtype };
  },
  evaluate: ([x], value) => {
    const strides = stridesOf(x.shape);
    const permuted = value.attributes.permutation.map((axis) => strides[axis]);
    return readStrided(x.data, value.shape, permuted);
  },
  vjp: ({ attributes: { permutation } }, cotangent) => [
    transpose(
      cotangent,
      permutation.map((_, axis) => permutation.indexOf(axis)),
    ),
  ],
  jvp: (value, [tangent]) => tangent && transpose(tangent, value.attributes.permutation),
  onnx: (builder, [x], value) =>
    builder.node("Transpose", [x], { perm: value.attributes.permutation }),
  pytorch: ([x], { attributes: { permutation } }) => `${x}.permute([${permutation.join(", ")}])`,
  couple: ({ attributes: { permutation } }, [x]) => permutation.map((axis) => x[axis]),
  simplify: (value) => {
    const [x] = value.inputs;
    const { permutation } = value.attributes;
    if (permutation.every((axis, i) => axis === i)) return x;
    if (x.operation !== transposeOperation) return undefined;
    const inner = x.attributes.permutation as readonly number[];
    // Matrix products read matrices the other way round at no cost, and what is exchanged may be there
    // for another product.
    if (exchangesLast(permutation) && inner.at(-1) === inner.length - 1) return undefined;
    return transpose(
      x.inputs[0],
      permutation.map((axis) => inner[axis]),
    );
  },
};

function lastExchanged(rank: number): number[] {
  return [...Array(rank - 2).keys(), rank - 1, rank - 2];
}

/** Whether a permutation exchanges the last two axes and no others. */
export function exchangesLast(permutation: readonly number[]): boolean {
  return sameShape(permutation, lastExchanged(permutation.length));
}

/** Permutes axes; by default exchanges the last two. */
export function transpose(x: Value, permutation?: readonly number[]): Value {
  return apply(transposeOperation, [x], {
    permutation: permutation ?? lastExchanged(x.shape.length),
  });
}

/** What `value` is with the last two of its axes exchanged, if it is such an exchange. */
export function exchangedOf({ operation, inputs, attributes }: Value): Value | undefined {
  if (operation !== transposeOperation) return undefined;
  return exchangesLast(attributes.permutation as readonly number[]) ? inputs[0] : undefined;
}

// --- slice and pad: adjoint to each other ---

interface SliceAttributes {
  readonly starts: readonly number[];
  readonly ends: readonly number[];
  readonly steps: readonly number[];
}

export const sliceOperation: Operation<SliceAttributes> = {
  name: "slice",
  semantics: "elements starts, starts + steps, … before ends, on every axis",
  infer: ([x], { starts, ends, steps }) => {
    expectInputs(
      starts.length === x.shape.length &&
        x.shape.every(
          (n, i) => starts[i] >= 0 && starts[i] < ends[i] && ends[i] <= n && steps[i] > 0,
        ),
      "slice",
      `a tensor that contains [${starts}] to [${ends}]`,
      [x],
    );
    return {
      shape: starts.map((start, i) => Math.ceil((ends[i] - start) / steps[i])),
      dtype: x.dtype,
    };
  },
  evaluate: ([x], value) => {
    const { starts, steps } = value.attributes;
    const strides = stridesOf(x.shape);
    const offset = starts.reduce((total, start, axis) => total + start * strides[axis], 0);
    const scaled = strides.map((stride, axis) => stride * steps[axis]);
    return readStrided(x.data, value.shape, scaled, offset);
  },
  vjp: (value, cotangent) => {
    const { starts, steps } = value.attributes;
    const [x] = value.inputs;
    const after = x.shape.map(
      (n, axis) => n - starts[axis] - ((value.shape[axis] - 1) * steps[axis] + 1),
    );
    return [
      pad(
        cotangent,
        starts,
        after,
        steps.map((step) => step - 1),
      ),
    ];
  },
  jvp: (value, [tangent]) => tangent && apply(sliceOperation, [tangent], value.attributes),
  onnx: (builder, [x], value) => {
    const { starts, ends, steps } = value.attributes;
    const axes = [...starts.keys()].filter(
      (i) => starts[i] !== 0 || steps[i] !== 1 || ends[i] !== value.inputs[0].shape[i],
    );
    const pick = (values: readonly number[]) => builder.ints(axes.map((axis) => values[axis]));
    return builder.node("Slice", [x, pick(starts), pick(ends), builder.ints(axes), pick(steps)]);
  },
  pytorch: ([x], { attributes: { starts, ends, steps }, inputs: [{ shape }] }) => {
    // The end of an axis is left out, so that its size may be open.
    const ranges = shape.map((n, axis) => {
      const range = `${starts[axis] || ""}:${ends[axis] === n ? "" : ends[axis]}`;
      return steps[axis] === 1 ? range : `${range}:${steps[axis]}`;
    });
    return `${x}[${ranges.join(", ")}]`;
  },
  couple: ({ attributes: { starts, ends, steps } }, [x]) =>
    x.map((channels, axis) =>
      channels
        ?.subarray(starts[axis], ends[axis])
        .filter((_, position) => position % steps[axis] === 0),
    ),
  simplify: (value) =>
    sameShape(value.shape, value.inputs[0].shape) ? value.inputs[0] : undefined,
};

/** `x[start:end:step]` along one axis. */
export function slice(x: Value, axis: number, start: number, end: number, step = 1): Value {
  const at = normalizeAxis(axis, x.shape.length, "slice");
  return apply(sliceOperation, [x], {
    starts: x.shape.map((_, i) => (i === at ? start : 0)),
    ends: x.shape.map((n, i) => (i === at ? end : n)),
    steps: x.shape.map((_, i) => (i === at ? step : 1)),
  });
}

interface PadAttributes {
  readonly before: readonly number[];
  readonly after: readonly number[];
  readonly interior: readonly number[];
}

export const padOperation: Operation<PadAttributes> = {
  name: "pad",
  semantics: "zeros before, after and between the elements of every axis",
  infer: ([x], { before, after, interior }) => {
    expectInputs(
      before.length === x.shape.length &&
        [...before, ...after, ...interior].every((n) => n >= 0 && Number.isInteger(n)),
      "pad",
      `a tensor of rank ${before.length} and widths >= 0`,
      [x],
    );
    return {
      shape: x.shape.map((n, i) => before[i] + n + (n - 1) * interior[i] + after[i]),
      dtype: x.dtype,
    };
  },
  evaluate: ([x], value) => {
    const { before, interior } = value.attributes;
    const strides = stridesOf(value.shape);
    const offset = before.reduce((total, n, axis) => total + n * strides[axis], 0);
    const scaled = strides.map((stride, axis) => stride * (interior[axis] + 1));
    const result = new Float64Array(sizeOf(value.shape));
    forEachOffset(x.shape, [scaled], (flat, [position]) => {
      result[offset + position] = x.data[flat];
    });
    return result;
  },
  vjp: (value, cotangent) => {
    const { before, after, interior } = value.attributes;
    return [
      apply(sliceOperation, [cotangent], {
        starts: before,
        ends: value.shape.map((n, axis) => n - after[axis]),
        steps: interior.map((n) => n + 1),
      }),
    ];
  },
  jvp: (value, [tangent]) => tangent && apply(padOperation, [tangent], value.attributes),
  onnx: (builder, [x], value) => {
    const { before, after, interior } = value.attributes;
    const shape = value.inputs[0].shape;
    let result = x;
    let ends = after;
    if (interior.some((n) => n > 0)) {
      // [n] -> [n, 1] -> [n, 1 + interior] -> [n * (1 + interior)]; the last gap is cropped below.
      const split = shape.flatMap((n) => [n, 1]);
      const widths = interior.flatMap((n) => [0, n]);
      result = builder.reshape(result, shape, split);
      result = builder.node("Pad", [result, builder.ints([...widths.map(() => 0), ...widths])]);
      const merged = shape.map((n, axis) => n * (1 + interior[axis]));
      result = builder.reshape(
        result,
        split.map((n, axis) => n + widths[axis]),
        merged,
      );
      ends = after.map((n, axis) => n - interior[axis]);
    }
    return builder.node("Pad", [result, builder.ints([...before, ...ends])]);
  },
  pytorch: ([x], { attributes: { before, after, interior } }) => {
    if (interior.some((n) => n > 0)) return undefined;
    // From the last axis to the first.
    const widths = before.map((n, axis) => `${n}, ${after[axis]}`).reverse();
    return `F.pad(${x}, [${widths.join(", ")}])`;
  },
  affine: () => true,
  couple: ({ shape, attributes: { before, interior } }, [x]) =>
    x.map((channels, axis) => {
      if (channels === undefined) return undefined;
      const padded = new Int32Array(shape[axis]).fill(ZERO);
      channels.forEach((channel, i) => {
        padded[before[axis] + i * (interior[axis] + 1)] = channel;
      });
      return padded;
    }),
  simplify: (value) =>
    sameShape(value.shape, value.inputs[0].shape) ? value.inputs[0] : undefined,
};

/** Zeros around, and `interior` zeros between, the elements of every axis. */
export function pad(
  x: Value,
  before: readonly number[],
  after: readonly number[],
  interior: readonly number[] = before.map(() => 0),
): Value {
  return apply(padOperation, [x], { before, after, interior });
}

// --- concat ---

export const concatOperation: Operation<{ axis: number }> = {
  name: "concat",
  semantics: "joins tensors along an axis",
  infer: (inputs, { axis }) => {
    const [first] = inputs;
    expectInputs(
      inputs.every(
        (x) =>
          x.dtype === first.dtype &&
          x.shape.length === first.shape.length &&
          x.shape.every((n, i) => i === axis || n === first.shape[i]),
      ),
      "concat",
      `tensors that differ on axis ${axis} only`,
      inputs,
    );
    const length = inputs.reduce((total, x) => total + x.shape[axis], 0);
    return { shape: first.shape.map((n, i) => (i === axis ? length : n)), dtype: first.dtype };
  },
  evaluate: (inputs, value) => {
    const { axis } = value.attributes;
    const strides = stridesOf(value.shape);
    const result = new Float64Array(sizeOf(value.shape));
    let start = 0;
    for (const x of inputs) {
      const offset = start * strides[axis];
      forEachOffset(x.shape, [strides], (flat, [position]) => {
        result[offset + position] = x.data[flat];
      });
      start += x.shape[axis];
    }
    return result;
  },
  vjp: (value, cotangent) => {
    const { axis } = value.attributes;
    let start = 0;
    return value.inputs.map((x) => {
      const end = start + x.shape[axis];
      const part = slice(cotangent, axis, start, end);
      start = end;
      return part;
    });
  },
  jvp: (value, tangents) =>
    tangents.every((tangent) => tangent === undefined)
      ? undefined
      : concat(
          tangents.map((tangent, i) => tangent ?? full(value.inputs[i].shape, 0)),
          value.attributes.axis,
        ),
  affine: () => true,
  onnx: (builder, inputs, value) => builder.node("Concat", inputs, { axis: value.attributes.axis }),
  pytorch: (inputs, { attributes: { axis } }) => `torch.cat([${inputs.join(", ")}], dim=${axis})`,
  couple: ({ shape, inputs, attributes: { axis: joined } }, operands, coupling) =>
    shape.map((_, axis) => {
      const parts = operands.map((axes) => axes[axis]);
      if (axis !== joined) return parts.reduce((a, b) => coupling.unite(a, b));
      if (parts.every((part) => part === undefined)) return undefined;
      // A part that must stay whole is one whose channels are all fixed.
      return Int32Array.from(
        parts.flatMap((part, i) => {
          const channels = part ?? coupling.fresh(inputs[i].shape[axis], false);
          if (part === undefined) coupling.fix(channels);
          return [...channels];
        }),
      );
    }),
};

export function concat(inputs: readonly Value[], axis: number): Value {
  if (inputs.length === 1) return inputs[0];
  return apply(concatOperation, inputs, {
    axis: normalizeAxis(axis, inputs[0].shape.length, "concat"),
  });
}

// --- gather and scatterAdd: adjoint to each other ---

export const gatherOperation: Operation<{ axis: number }> = {
  name: "gather",
  semantics: "result[…, i…, …] = x[…, indices[i…], …] along an axis",
  infer: ([x, indices], { axis }) => {
    expectInputs(indices.dtype === "int64", "gather", "a tensor and int64 indices", [x, indices]);
    return {
      shape: [...x.shape.slice(0, axis), ...indices.shape, ...x.shape.slice(axis + 1)],
      dtype: x.dtype,
    };
  },
  evaluate: ([x, indices], { attributes: { axis } }) => {
    const { outer, inner } = splitAt(x.shape, axis);
    const count = indices.data.length;
    const result = new Float64Array(outer * count * inner);
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < count; i++) {
        const from = (o * x.shape[axis] + indices.data[i]) * inner;
        result.set(x.data.subarray(from, from + inner), (o * count + i) * inner);
      }
    }
    return result;
  },
  vjp: (value, cotangent) => {
    const [x, indices] = value.inputs;
    const { axis } = value.attributes;
    return [
      apply(scatterAddOperation, [indices, cotangent], { axis, length: x.shape[axis] }),
      undefined,
    ];
  },
  jvp: (value, [tangent]) =>
    tangent && apply(gatherOperation, [tangent, value.inputs[1]], value.attributes),
  affine: ({ inputs: [, indices] }, input) => {
    if (input !== 0 || !isConstant(indices)) return false;
    const { data } = indices.attributes;
    return new Set<number | bigint>(data).size === data.length;
  },
  onnx: (builder, inputs, value) => builder.node("Gather", inputs, { axis: value.attributes.axis }),
  pytorch: ([x, indices], { attributes: { axis } }) => `${x}[${":, ".repeat(axis)}${indices}]`,
  couple: ({ shape, inputs: [x, indices], attributes: { axis: at } }, [axes], coupling) => {
    const chosen = axes[at];
    let selected: AxisChannels;
    if (isConstant(indices) && indices.shape.length === 1) {
      const positions = indices.attributes.data as BigInt64Array;
      selected = chosen && Int32Array.from([...positions].map((index) => chosen[Number(index)]));
    } else {
      coupling.fix(chosen);
    }
    const added = shape.length - x.shape.length;
    return shape.map((_, axis) => {
      if (axis < at) return axes[axis];
      if (axis <= at + added) return added === 0 ? selected : undefined;
      return axes[axis - added];
    });
  },
};

/** Rows of `x` along `axis`; negative indices are not allowed. `indices`: an int64 value or numbers. */
export function gather(x: Value, indices: Value | readonly number[], axis: number): Value {
  const at = normalizeAxis(axis, x.shape.length, "gather");
  if (!Array.isArray(indices)) return apply(gatherOperation, [x, indices as Value], { axis: at });
  expectInputs(
    indices.every((i) => Number.isInteger(i) && i >= 0 && i < x.shape[at]),
    "gather",
    `indices below ${x.shape[at]}, not [${indices}], into`,
    [x],
  );
  return apply(gatherOperation, [x, integers([indices.length], indices)], { axis: at });
}

// Into so few rows a product with a matrix of zeros and ones adds faster than ScatterElements: 0.2 ms
// instead of 3.6 ms for 2,048 rows of 384 numbers into 2 (ONNX Runtime 1.30, 2 threads).
const FEW_ROWS = 64;

export const scatterAddOperation: Operation<{ axis: number; length: number }> = {
  name: "scatterAdd",
  semantics: "adds rows to zeros at given positions along an axis: the adjoint of gather",
  infer: ([indices, rows], { axis, length }) => {
    const rank = indices.shape.length;
    expectInputs(
      indices.dtype === "int64" && sameShape(rows.shape.slice(axis, axis + rank), indices.shape),
      "scatterAdd",
      "indices and a row for each",
      [indices, rows],
    );
    return {
      shape: [...rows.shape.slice(0, axis), length, ...rows.shape.slice(axis + rank)],
      dtype: rows.dtype,
    };
  },
  evaluate: ([indices, rows], value) => {
    const { axis, length } = value.attributes;
    const { outer, inner } = splitAt(value.shape, axis);
    const count = indices.data.length;
    const result = new Float64Array(sizeOf(value.shape));
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < count; i++) {
        const to = (o * length + indices.data[i]) * inner;
        const from = (o * count + i) * inner;
        for (let k = 0; k < inner; k++) result[to + k] += rows.data[from + k];
      }
    }
    return result;
  },
  vjp: (value, cotangent) => [
    undefined,
    apply(gatherOperation, [cotangent, value.inputs[0]], { axis: value.attributes.axis }),
  ],
  jvp: (value, [, tangent]) =>
    tangent && apply(scatterAddOperation, [value.inputs[0], tangent], value.attributes),
  onnx: (builder, [indices, rows], value) => {
    const { axis, length } = value.attributes;
    const [i, r] = value.inputs;
    const count = sizeOf(i.shape);
    const { outer, inner } = splitAt(value.shape, axis);
    const flatRows = builder.reshape(rows, r.shape, [outer, count, inner]);
    const shape = [outer, length, inner];
    if (length <= FEW_ROWS) {
      const flat = builder.reshape(indices, i.shape, [count]);
      const chosen = builder.oneHot(flat, length);
      const transposed = builder.node("Transpose", [chosen], { perm: [1, 0] });
      const added = builder.matmul(transposed, flatRows);
      return builder.reshape(added, shape, value.shape);
    }
    // ScatterElements wants an index for every element of the rows. ScatterND wants one for each row and
    // takes a third of the time, but loses additions where rows share an index (onnxruntime 1.30).
    const flatIndices = builder.reshape(indices, i.shape, [1, count, 1]);
    const expanded = builder.node("Expand", [flatIndices, builder.ints([outer, count, inner])]);
    const zeros = builder.node("Expand", [builder.scalar(0), builder.ints(shape)]);
    const added = builder.node("ScatterElements", [zeros, expanded, flatRows], {
      axis: 1,
      reduction: "add",
    });
    return builder.reshape(added, shape, value.shape);
  },
};

export const positionsOperation: Operation<Record<string, never>> = {
  name: "positions",
  semantics: "the index of each element of x along the last axis, int64",
  infer: ([x]) => ({ shape: x.shape, dtype: "int64" }),
  evaluate: (_inputs, { shape }) => {
    const length = shape[shape.length - 1];
    return Float64Array.from({ length: sizeOf(shape) }, (_, i) => i % length);
  },
  // Counted rather than stored, so that the shape may be open.
  onnx: (builder, [x]) => {
    const ones = builder.node("Expand", [builder.ints([1]), builder.node("Shape", [x])]);
    return builder.node("CumSum", [ones, builder.ints([-1])], { exclusive: 1 });
  },
  pytorch: ([x]) => `torch.arange(${x}.shape[-1], device=${x}.device).expand(${x}.shape)`,
  couple: (value, [x], coupling) => {
    for (const axis of x) coupling.fix(axis);
    return value.shape.map(() => undefined);
  },
};

/** Of the shape of `x`, what position each element has along the last axis. */
export function positions(x: Value): Value {
  return apply(positionsOperation, [x], {});
}

function splitAt(shape: Shape, axis: number): { outer: number; inner: number } {
  return { outer: sizeOf(shape.slice(0, axis)), inner: sizeOf(shape.slice(axis + 1)) };
}

/**
 * Puts slice i of `x` along `axis` at `positions[i]` of a tensor of zeros that is `length` long
 * there. Positions must be distinct.
 */
export function place(x: Value, positions: readonly number[], length: number, axis: number): Value {
  const at = normalizeAxis(axis, x.shape.length, "place");
  expectInputs(
    positions.length === x.shape[at] &&
      new Set(positions).size === positions.length &&
      positions.every((position) => position >= 0 && position < length),
    "place",
    `${positions.length} distinct positions below ${length} for axis ${at}`,
    [x],
  );
  if (positions.every((position, i) => position === positions[0] + i)) {
    const before = x.shape.map((_, i) => (i === at ? positions[0] : 0));
    const after = x.shape.map((n, i) => (i === at ? length - positions[0] - n : 0));
    return before[at] + after[at] === 0 ? x : pad(x, before, after);
  }
  // Slices of zeros are appended, one for every other position.
  const padded = pad(
    x,
    x.shape.map(() => 0),
    x.shape.map((n, i) => (i === at ? length - n : 0)),
  );
  const sources = new Array<number>(length);
  positions.forEach((position, i) => {
    sources[position] = i;
  });
  let zero = positions.length;
  for (let position = 0; position < length; position++) sources[position] ??= zero++;
  return gather(padded, sources, at);
}
