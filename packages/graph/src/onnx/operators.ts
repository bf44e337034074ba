/**
 * @file What each ONNX operator is in terms of our operations: all operators that our lowerings
 * emit, in the forms in which they emit them (https://onnx.ai/onnx/operators, operator set 20).
 */
import { linear, matmul } from "../ops/contract.ts";
import { conv, convInputGradient, smallestInput } from "../ops/convolution.ts";
import {
  abs,
  add,
  cast,
  clip,
  divide,
  equal,
  erf,
  exp,
  gelu,
  greater,
  log,
  maximum,
  minimum,
  multiply,
  negate,
  reciprocal,
  relu,
  sigmoid,
  sign,
  sqrt,
  square,
  subtract,
  tanh,
  where,
} from "../ops/elementwise.ts";
import { integers, isConstant, scalar } from "../ops/leaf.ts";
import {
  batchNorm,
  layerNorm,
  logSoftmax,
  mean,
  oneHot,
  perChannel,
  softmax,
} from "../ops/normalize.ts";
import { averagePool, maxPool, type PoolAttributes } from "../ops/pool.ts";
import {
  broadcastOperation,
  broadcastTo,
  concat,
  full,
  gather,
  pad,
  positions,
  reshape,
  scatterAddOperation,
  slice,
  sum,
  transpose,
} from "../ops/shape.ts";
import { apply, type DType, type Shape, sizeOf, stridesOf, type Value } from "../value.ts";
import type { OnnxNode } from "./builder.ts";
import { onnxDataTypes } from "./encode.ts";
import type { Fail } from "./invalid-file.ts";
import { NodeReader, type Ranges, type Reader } from "./node-reader.ts";

// --- one operand, several operands ---

function unary(build: (x: Value) => Value): Reader {
  return (node) => build(node.floats(0));
}

function binary(build: (a: Value, b: Value) => Value): Reader {
  return (node) => build(node.input(0), node.input(1));
}

/** Any number of operands. */
function variadic(build: (a: Value, b: Value) => Value): Reader {
  return (node) => operands(node).reduce((total, value) => build(total, value));
}

function operands(node: NodeReader): Value[] {
  return Array.from({ length: Math.max(1, node.inputCount) }, (_, i) => node.input(i));
}

function readCast(node: NodeReader): Value {
  const to = node.number("to", 0);
  const found = Object.entries(onnxDataTypes).find(([, number]) => number === to);
  if (found === undefined) throw node.fail(`attribute to: data type ${to} is not supported`);
  return cast(node.input(0), found[0] as DType);
}

function readHardSigmoid(node: NodeReader): Value {
  const x = node.floats(0);
  const line = add(
    multiply(x, scalar(node.number("alpha", 0.2))),
    scalar(node.number("beta", 0.5)),
  );
  return minimum(maximum(line, scalar(0)), scalar(1));
}

// --- shapes ---

function readReshape(node: NodeReader): Value {
  const x = node.input(0);
  node.only("allowzero", 0);
  const target = node.constants(1).map((n, axis) => (n === 0 ? (x.shape[axis] ?? 0) : n));
  const rest = sizeOf(x.shape) / sizeOf(target.filter((n) => n !== -1));
  node.expect(
    target.filter((n) => n === -1).length <= 1,
    `expected at most one open dimension, got [${target}]`,
  );
  return reshape(
    x,
    target.map((n) => (n === -1 ? rest : n)),
  );
}

function readExpand(node: NodeReader): Value {
  const x = node.input(0);
  const target = node.constants(1);
  const rank = Math.max(x.shape.length, target.length);
  const aligned = (shape: Shape) => [...Array(rank - shape.length).fill(1), ...shape];
  const own = aligned(x.shape);
  return broadcastTo(
    x,
    aligned(target).map((n, axis) => (n === 1 ? own[axis] : n)),
  );
}

function readTranspose(node: NodeReader): Value {
  const x = node.input(0);
  const reversed = [...x.shape.keys()].reverse();
  return transpose(x, node.list("perm", reversed, 0));
}

/** The axes that an optional input names, of the tensor in input 0. */
function axesOf(node: NodeReader, index: number): number[] | undefined {
  if (node.optional(index) === undefined) return undefined;
  return node.constants(index).map((axis) => node.axis(axis, node.input(0)));
}

function readSlice(node: NodeReader): Value {
  const x = node.input(0);
  const starts = node.constants(1);
  const ends = node.constants(2);
  const axes = axesOf(node, 3) ?? [...starts.keys()];
  const steps = node.optional(4) === undefined ? starts.map(() => 1) : node.constants(4);
  node.expect(
    [ends, axes, steps].every(({ length }) => length === starts.length),
    "expected as many starts, ends, axes and steps",
  );
  return axes.reduce(
    (result, axis, i) => sliceAxis(node, result, axis, starts[i], ends[i], steps[i]),
    x,
  );
}

function sliceAxis(
  node: NodeReader,
  x: Value,
  axis: number,
  start: number,
  end: number,
  step: number,
): Value {
  const length = x.shape[axis];
  const clamp = (position: number, low: number, high: number) =>
    Math.min(Math.max(position < 0 ? position + length : position, low), high);
  if (step > 0) return slice(x, axis, clamp(start, 0, length), clamp(end, 0, length), step);
  // A slice that runs backwards picks its elements by their indices.
  const first = clamp(start, 0, length - 1);
  const count = Math.ceil((clamp(end, -1, length - 1) - first) / step);
  node.expect(count > 0, `expected at least one element of axis ${axis}, got none`);
  const steps = multiply(node.range(count), integers([], [step]));
  return gather(x, add(steps, integers([], [first])), axis);
}

function readPad(node: NodeReader): Value {
  const x = node.input(0);
  const axes = axesOf(node, 3) ?? [...x.shape.keys()];
  const widths = node.constants(1);
  node.only("mode", "constant");
  node.expect(
    node.optional(2) === undefined || node.constants(2)[0] === 0,
    "input 2: only padding by zeros is supported",
  );
  node.expect(
    widths.length === 2 * axes.length,
    `expected ${2 * axes.length} widths, got ${widths.length}`,
  );
  const width = (axis: number, side: number) =>
    axes.includes(axis) ? widths[axes.indexOf(axis) + side * axes.length] : 0;
  const [before, after] = [0, 1].map((side) => x.shape.map((_, axis) => width(axis, side)));
  // Negative widths crop.
  const cropped = x.shape.reduce(
    (result, n, axis) =>
      slice(result, axis, Math.max(0, -before[axis]), n + Math.min(0, after[axis])),
    x,
  );
  const positive = (n: number) => Math.max(0, n);
  return pad(cropped, before.map(positive), after.map(positive));
}

function readConcat(node: NodeReader): Value {
  const values = operands(node);
  return concat(values, node.axis(node.number("axis", 0), values[0]));
}

// --- indices ---

function readGather(node: NodeReader): Value {
  const x = node.input(0);
  const axis = node.axis(node.number("axis", 0), x);
  return gather(x, node.indices(1, x.shape[axis]), axis);
}

/** The row-major offset of every index of `shape`, in a tensor with the given strides. */
function offsets(node: NodeReader, shape: Shape, strides: readonly number[]): Value {
  return shape.reduce(
    (total, n, axis) => {
      const scaled = multiply(node.range(n), integers([], [strides[axis]]));
      return add(total, reshape(scaled, [n, ...shape.slice(axis + 1).map(() => 1)]));
    },
    integers([], [0]) as Value,
  );
}

/** Only additions: through the flat offset of every element. */
function readScatterElements(node: NodeReader): Value {
  const [data, updates] = [node.floats(0), node.floats(2)];
  const axis = node.axis(node.number("axis", 0), data);
  const indices = node.indices(1, data.shape[axis]);
  const reduction = node.text("reduction", "none");
  node.expect(reduction === "add", `reduction ${reduction} is not supported, only add`);
  node.expect(
    indices.shape.join() === updates.shape.join() && indices.shape.length === data.shape.length,
    "expected an index for every update",
  );
  const strides = stridesOf(data.shape);
  const others = strides.map((stride, i) => (i === axis ? 0 : stride));
  const positions = add(
    multiply(indices, integers([], [strides[axis]])),
    offsets(node, indices.shape, others),
  );
  const count = sizeOf(updates.shape);
  const size = sizeOf(data.shape);
  const rows = [reshape(positions, [count]), reshape(updates, [count])];
  const added = apply(scatterAddOperation, rows, { axis: 0, length: size });
  return add(data, reshape(added, data.shape));
}

function readOneHot(node: NodeReader): Value {
  node.only("axis", -1);
  const [depth] = node.constants(1);
  const values = node.constants(2);
  const [off, on] = values;
  node.expect(
    depth > 0 && values.length === 2 && node.input(2).dtype === "float32",
    "expected a positive depth and two values of type float32",
  );
  const rows = oneHot(node.indices(0, depth), depth);
  return add(multiply(rows, scalar(on - off)), scalar(off));
}

// --- reductions and normalisations ---

function reduction(
  build: (x: Value, axes: readonly number[] | undefined, keepDimensions: boolean) => Value,
): Reader {
  return (node) => {
    node.only("noop_with_empty_axes", 0);
    const axes = axesOf(node, 1);
    const chosen = axes?.length === 0 ? undefined : axes;
    return build(node.floats(0), chosen, node.number("keepdims", 1) !== 0);
  };
}

function readGlobalAveragePool(node: NodeReader): Value {
  return mean(node.floats(0, 4), [2, 3], true);
}

/** Along the last axis only. */
function lastAxis(build: (x: Value) => Value): Reader {
  return (node) => {
    const x = node.floats(0);
    requireLastAxis(node, x);
    return build(x);
  };
}

function requireLastAxis(node: NodeReader, x: Value): void {
  const axis = node.axis(node.number("axis", -1), x);
  node.expect(axis === x.shape.length - 1, "only the last axis is supported");
}

function readLayerNormalization(node: NodeReader): Value {
  const [x, scale] = [node.floats(0), node.floats(1)];
  requireLastAxis(node, x);
  node.only("stash_type", 1);
  const bias = node.optional(2) === undefined ? full(scale.shape, 0) : node.floats(2);
  return layerNorm(x, scale, bias, node.number("epsilon", 1e-5));
}

function readBatchNormalization(node: NodeReader): Value {
  node.only("training_mode", 0);
  const [x, scale, bias, average, variance] = [0, 1, 2, 3, 4].map((i) => node.floats(i));
  return batchNorm(x, { scale, bias, mean: average, variance }, node.number("epsilon", 1e-5));
}

// --- contractions and pooling ---

function readGemm(node: NodeReader): Value {
  const [a, b] = [node.floats(0, 2), node.floats(1, 2)];
  const rows = node.number("transA", 0) === 0 ? a : transpose(a);
  const product = node.number("transB", 0) === 0 ? matmul(rows, b) : linear(rows, b);
  const times = (x: Value, factor: number) => (factor === 1 ? x : multiply(x, scalar(factor)));
  const scaled = times(product, node.number("alpha", 1));
  const beta = node.number("beta", 1);
  return node.optional(2) === undefined ? scaled : add(scaled, times(node.floats(2), beta));
}

type Pair = readonly [number, number];

/** What convolutions and pools say of their windows. */
function windowOf(node: NodeReader): Pick<PoolAttributes, "strides" | "padding"> {
  node.only("auto_pad", "NOTSET");
  return {
    strides: node.list("strides", [1, 1], 1) as Pair,
    padding: node.list("pads", [0, 0, 0, 0], 0) as PoolAttributes["padding"],
  };
}

function readConv(node: NodeReader): Value {
  const [x, w] = [node.floats(0, 4), node.floats(1, 4)];
  node.only("kernel_shape", w.shape.slice(2));
  return withBias(node, conv(x, w, convolutionOf(node)));
}

function readConvTranspose(node: NodeReader): Value {
  const [y, w] = [node.floats(0, 4), node.floats(1, 4)];
  const kernel = w.shape.slice(2);
  node.only("kernel_shape", kernel);
  const attributes = convolutionOf(node);
  const extra = node.list("output_padding", [0, 0], 0);
  const [height, width] = smallestInput(y.shape.slice(2), kernel, attributes);
  const inputSize = [height + extra[0], width + extra[1]] as const;
  return withBias(node, convInputGradient(y, w, { ...attributes, inputSize }));
}

function convolutionOf(node: NodeReader) {
  return {
    ...windowOf(node),
    dilations: node.list("dilations", [1, 1], 1) as Pair,
    groups: node.number("group", 1),
  };
}

/** `y` [N, K, H, W] plus the optional third input. */
function withBias(node: NodeReader, y: Value): Value {
  if (node.optional(2) === undefined) return y;
  const bias = node.floats(2, 1);
  node.expect(bias.shape[0] === y.shape[1], `expected ${y.shape[1]} biases, got ${bias.shape[0]}`);
  return add(y, perChannel(bias, 4));
}

function readClip(node: NodeReader): Value {
  const [low, high] = [1, 2].map((index) => {
    const bound = node.constants(index);
    node.expect(bound.length === 1, `input ${index}: expected one number, got ${bound.length}`);
    return bound[0];
  });
  node.expect(low < high, `expected a low bound below the high one, got ${low} and ${high}`);
  return clip(node.floats(0), low, high);
}

function readDepthToSpace(node: NodeReader): Value {
  const x = node.floats(0, 4);
  const mode = node.text("mode", "DCR");
  node.expect(mode === "CRD", `mode ${mode} is not supported, only CRD`);
  const [n, c, height, width] = x.shape;
  const block = node.number("blocksize", 0);
  const channels = c / block ** 2;
  const split = reshape(x, [n, channels, block, block, height, width]);
  const turned = transpose(split, [0, 1, 4, 2, 5, 3]);
  return reshape(turned, [n, channels, height * block, width * block]);
}

function poolOf(node: NodeReader): PoolAttributes {
  node.only("ceil_mode", 0);
  node.only("dilations", [1, 1]);
  const kernel = node.list("kernel_shape", [0, 0], 1) as Pair;
  const pool = { ...windowOf(node), kernel };
  node.expect(
    pool.padding.every((n, i) => n < kernel[i % 2]),
    "expected padding smaller than the window",
  );
  return pool;
}

function readAveragePool(node: NodeReader): Value {
  const pool = poolOf(node);
  const counted = node.number("count_include_pad", 0) !== 0;
  node.expect(
    counted || pool.padding.every((n) => n === 0),
    "averages without their padding are not supported",
  );
  return averagePool(node.floats(0, 4), pool);
}

/** The second output is where the maxima are, as offsets into the whole of x. */
function readMaxPool(node: NodeReader): readonly Value[] {
  const x = node.floats(0, 4);
  const pool = poolOf(node);
  node.only("storage_order", 0);
  const largest = maxPool(x, pool);
  if (node.outputCount === 1) return [largest];
  // float32 is exact for offsets into a plane; those of the planes are added as integers.
  const [n, c, height, width] = x.shape;
  node.expect(height * width <= 2 ** 24, "expected planes of at most 2^24 elements");
  const inPlane = cast(offsets(node, [height, width], [width, 1]), "float32");
  // The derivative of a maximum picks what lies where the maximum does.
  const chosen = largest.operation.jvp!(largest, [broadcastTo(inPlane, x.shape)])!;
  const planes = offsets(node, [n, c], [c * height * width, height * width]);
  return [largest, add(cast(chosen, "int64"), reshape(planes, [n, c, 1, 1]))];
}

/** Counts along the last axis from 0: the exclusive sums of ones, which is all that we emit. */
function readCumSum(node: NodeReader): Value {
  const x = node.input(0);
  node.only("reverse", 0);
  node.expect(node.number("exclusive", 0) === 1, "inclusive sums are not supported");
  const [axis, ...more] = node.constants(1);
  const last = x.shape.length - 1;
  node.expect(
    more.length === 0 && node.axis(axis, x) === last,
    `expected sums along axis ${last}, got [${[axis, ...more]}]`,
  );
  node.expect(x.dtype === "int64" && isOnes(x), "expected sums of ones");
  return positions(x);
}

/** Whether all elements are 1, however often they are repeated. */
function isOnes(value: Value): boolean {
  if (value.operation === broadcastOperation) return isOnes(value.inputs[0]);
  return isConstant(value) && Array.from(value.attributes.data, Number).every((n) => n === 1);
}

/** A reader for every operator that is supported, by the operator's name. */
const readers: ReadonlyMap<string, Reader> = new Map(
  Object.entries({
    Abs: unary(abs),
    Add: binary(add),
    AveragePool: readAveragePool,
    BatchNormalization: readBatchNormalization,
    Cast: readCast,
    Clip: readClip,
    Concat: readConcat,
    Conv: readConv,
    ConvTranspose: readConvTranspose,
    DepthToSpace: readDepthToSpace,
    CumSum: readCumSum,
    Div: (node: NodeReader) => divide(node.floats(0), node.floats(1)),
    Equal: binary(equal),
    Erf: unary(erf),
    Exp: unary(exp),
    Expand: readExpand,
    Gather: readGather,
    Gelu: unary(gelu),
    Gemm: readGemm,
    GlobalAveragePool: readGlobalAveragePool,
    Greater: binary(greater),
    HardSigmoid: readHardSigmoid,
    Identity: (node: NodeReader) => node.input(0),
    LayerNormalization: readLayerNormalization,
    Log: unary(log),
    LogSoftmax: lastAxis(logSoftmax),
    MatMul: (node: NodeReader) => matmul(node.floats(0), node.floats(1)),
    Max: variadic(maximum),
    MaxPool: readMaxPool,
    Min: variadic(minimum),
    Mul: binary(multiply),
    Neg: unary(negate),
    OneHot: readOneHot,
    Pad: readPad,
    Reciprocal: unary(reciprocal),
    ReduceMean: reduction(mean),
    ReduceSum: reduction(sum),
    ReduceSumSquare: reduction((x, axes, keep) => sum(square(x), axes, keep)),
    Relu: unary(relu),
    Reshape: readReshape,
    ScatterElements: readScatterElements,
    Shape: (node: NodeReader) => {
      const { shape } = node.input(0);
      return integers([shape.length], shape);
    },
    Sigmoid: unary(sigmoid),
    Sign: unary(sign),
    Slice: readSlice,
    Softmax: lastAxis(softmax),
    Sqrt: unary(sqrt),
    Sub: binary(subtract),
    Tanh: unary(tanh),
    Transpose: readTranspose,
    Where: (node: NodeReader) => where(node.input(0), node.input(1), node.input(2)),
  } satisfies Record<string, Reader>),
);

/**
 * The values of a node's outputs.
 *
 * @param inputs One for each of the node's; undefined for those left out.
 * @throws What `fail` makes, if the node is not valid or not supported.
 */
export function readNode(
  node: OnnxNode,
  inputs: readonly (Value | undefined)[],
  ranges: Ranges,
  fail: Fail,
): readonly Value[] {
  const reader = new NodeReader(node, inputs, ranges, fail);
  const operator = readers.get(node.type);
  if (operator === undefined) throw reader.fail("this operator is not supported");
  return reader.read(operator);
}
