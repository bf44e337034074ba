/** @file Values: the nodes of a static tensor graph, and the contract of the operations they apply. */
import { EspalierError } from "@espalier/base";
import type { AxisChannels, Coupling } from "./coupling.ts";
import type { OnnxBuilder } from "./onnx/builder.ts";
import type { PyTorchSyntax } from "./pytorch/syntax.ts";

export type DType = "float32" | "int64" | "bool";
export type Shape = readonly number[];

/** The memory of one tensor, row-major. */
export interface TensorDataTypes {
  float32: Float32Array;
  int64: BigInt64Array;
  bool: Uint8Array;
}
export type TensorData = TensorDataTypes[DType];

/** The arrays that tensors are in. */
export const tensorArrays = {
  float32: Float32Array,
  int64: BigInt64Array,
  bool: Uint8Array,
} as const;

/** A row-major array of float64, as the reference semantics of operations compute with. */
export interface NdArray {
  readonly shape: Shape;
  readonly data: Float64Array;
}

/**
 * One node of a graph: an operation applied to other values. Immutable. Values are numbered in the
 * order of their creation, so the inputs of a value always have smaller numbers than it.
 */
// biome-ignore lint/suspicious/noExplicitAny: an operation alone knows the type of its attributes.
export interface Value<A = any> {
  readonly id: number;
  readonly operation: Operation<A>;
  readonly inputs: readonly Value[];
  readonly attributes: A;
  readonly shape: Shape;
  readonly dtype: DType;
}

/** A layer: an operation of a tensor and a weight, taken apart into its widths and all the rest. */
export interface Layer {
  /** Equal for layers that differ in nothing but their widths, batch and sizes included. */
  readonly kind: string;
  /** Channels that each output channel sees. */
  readonly inputs: number;
  /** Output channels: of one group, where groups have several inputs and outputs. */
  readonly outputs: number;
  /** The shapes of tensor and weight at other widths. */
  shapes(inputs: number, outputs: number): { readonly x: Shape; readonly w: Shape };
  /** Applies the layer to a tensor and a weight of such shapes. */
  apply(x: Value, w: Value): Value;
}

/**
 * All that there is to know about one kind of node. Code outside an entry never asks for its name.
 *
 * A derivative may be given by `vjp` and `jvp`, or by `decompose`, whose result is differentiated
 * instead. An operation without any of them has derivative zero.
 */
// biome-ignore lint/suspicious/noExplicitAny: see Value.
export interface Operation<A = any> {
  readonly name: string;
  /** One line that says what is computed. */
  readonly semantics: string;
  /** Shape and type of the result. Throws for inputs that do not fit. */
  infer(inputs: readonly Value[], attributes: A): { shape: Shape; dtype: DType };
  /** The definition of the operation, in float64. */
  evaluate(inputs: readonly NdArray[], value: Value<A>): Float64Array;
  /** Cotangents of the inputs, given that of the result; undefined where it is zero. */
  vjp?(value: Value<A>, cotangent: Value): readonly (Value | undefined)[];
  /** Tangent of the result, given those of the inputs (undefined: zero). */
  jvp?(value: Value<A>, tangents: readonly (Value | undefined)[]): Value | undefined;
  /** The same result from simpler operations. */
  decompose?(value: Value<A>): Value;
  /**
   * The same result from simpler operations, where what `onnx` emits is not to be had everywhere; see
   * `makePortable`.
   */
  portable?(value: Value<A>): Value;
  /** Emits ONNX nodes; returns the name of the tensor that holds the result. */
  onnx(builder: OnnxBuilder, inputs: readonly string[], value: Value<A>): string;
  /** The result as a PyTorch expression of names of the inputs; undefined where there is none. */
  pytorch?(inputs: readonly string[], value: Value<A>, syntax: PyTorchSyntax): string | undefined;
  /** Multiply-accumulate operations of contractions; element-wise work counts as zero. */
  macs?(value: Value<A>): number;
  /** For operations of a tensor and a weight: what they are apart from their widths. */
  layer?(value: Value<A>): Layer;
  /** Bytes that the ONNX nodes hold besides inputs and result; see `cost`. */
  workspaceBytes?(value: Value<A>): number;
  /** A simpler value that equals this one, if there is one. */
  simplify?(value: Value<A>): Value | undefined;
  /** Linear in every input by itself: zero where one of them is. */
  readonly multilinear?: true;
  /** Whether each element of an input goes into one element of the result at most, by an affine function. */
  affine?(value: Value<A>, input: number): boolean;
  /** Identifies the attributes, where JSON does not. */
  key?(attributes: A): string;
  /**
   * The channels of every axis of the result, given those of the inputs' axes; see coupling.ts.
   * Without a rule, nothing may be removed from the inputs.
   */
  couple?(
    value: Value<A>,
    inputs: readonly (readonly AxisChannels[])[],
    coupling: Coupling,
  ): readonly AxisChannels[];
  /** For operations linear in a parameter: see `sampleNorms` in autodiff.ts. */
  sampleNorms?(value: Value<A>, cotangent: Value, input: number): Value;
  /** With `sampleNorms`: the axis of the result along which the rows of the parameter act. */
  rowAxis?(value: Value<A>, input: number): number;
  /**
   * For operations linear in a parameter [rows, …]: what every row, flattened to D numbers, is
   * multiplied with at each of L positions, [N, G, D, L]. Rows come in G groups of equal size, in
   * order, which see different things.
   */
  regressors?(value: Value<A>, input: number): Value;
}

let nextId = 0;

/** Applies `operation`. @throws EspalierError `invalid-graph` when the inputs do not fit. */
export function apply<A>(
  operation: Operation<A>,
  inputs: readonly Value[],
  attributes: A,
): Value<A> {
  const { shape, dtype } = operation.infer(inputs, attributes);
  return { id: nextId++, operation, inputs, attributes, shape, dtype };
}

/** Throws `invalid-graph` with the operation and the shapes it was given, unless `condition`. */
export function expectInputs(
  condition: boolean,
  operation: string,
  expected: string,
  inputs: readonly { shape: Shape; dtype?: DType }[],
): asserts condition {
  if (condition) return;
  const got = inputs.map(({ shape, dtype }) => `${dtype ?? ""}[${shape.join(",")}]`).join(", ");
  throw new EspalierError("invalid-graph", `${operation}: expected ${expected}, got ${got}`, {
    operation,
    shapes: inputs.map(({ shape }) => shape),
  });
}

/** Number of elements. */
export function sizeOf(shape: Shape): number {
  return shape.reduce((product, dimension) => product * dimension, 1);
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dimension, axis) => dimension === b[axis]);
}

/** Row-major strides, in elements. */
export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= shape[axis];
  }
  return strides;
}

/**
 * All values that `outputs` are computed from, themselves included, inputs before their users.
 * What lies behind values of `boundary` is left out.
 */
export function topologicalOrder(
  outputs: Iterable<Value>,
  boundary: ReadonlySet<Value> = new Set(),
): Value[] {
  const seen = new Set<Value>();
  const stack = [...outputs];
  for (let value = stack.pop(); value !== undefined; value = stack.pop()) {
    if (seen.has(value)) continue;
    seen.add(value);
    if (!boundary.has(value)) stack.push(...value.inputs);
  }
  return [...seen].sort((a, b) => a.id - b.id);
}

/** `axis` counted from the end when negative. */
export function normalizeAxis(axis: number, rank: number, operation: string): number {
  const normalized = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(axis) || normalized < 0 || normalized >= rank) {
    throw new EspalierError(
      "invalid-graph",
      `${operation}: expected an axis of a tensor of rank ${rank}, got ${axis}`,
      { operation, axis, rank },
    );
  }
  return normalized;
}

/** Distinct axes in ascending order (default: all), counted from the end when negative. */
export function normalizeAxes(
  axes: readonly number[] | undefined,
  rank: number,
  operation: string,
): number[] {
  if (axes === undefined) return [...Array(rank).keys()];
  const distinct = new Set(axes.map((axis) => normalizeAxis(axis, rank, operation)));
  return [...distinct].sort((a, b) => a - b);
}
