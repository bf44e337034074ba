/** @file The leaves of graphs: inputs and constants. */
import { EspalierError } from "@espalier/base";
import type { OnnxBuilder } from "../onnx/builder.ts";
import {
  apply,
  type DType,
  type Operation,
  type Shape,
  sizeOf,
  type TensorData,
  type Value,
} from "../value.ts";

export interface InputAttributes {
  readonly name: string;
  readonly shape: Shape;
  readonly dtype: DType;
}

export const inputOperation: Operation<InputAttributes> = {
  name: "input",
  semantics:
    "a tensor that is given when the program runs, or bound as a constant when it is compiled",
  infer: (_inputs, { shape, dtype }) => ({ shape, dtype }),
  evaluate: (_inputs, value) => {
    throw new EspalierError("invalid-graph", `input ${value.attributes.name} was given no value`);
  },
  onnx: (_builder, _inputs, value) => value.attributes.name,
  couple: ({ shape }) => shape.map(() => undefined),
};

/** A named tensor that programs receive: data, or a parameter. */
export function input(
  name: string,
  shape: Shape,
  dtype: DType = "float32",
): Value<InputAttributes> {
  return apply(inputOperation, [], { name, shape, dtype });
}

export function isInput(value: Value): value is Value<InputAttributes> {
  return value.operation === inputOperation;
}

export interface ConstantAttributes {
  readonly shape: Shape;
  readonly dtype: DType;
  readonly data: TensorData;
}

// Constants up to this many elements are compared by content, larger ones by identity.
const COMPARED_ELEMENTS = 1024;
const identities = new WeakMap<TensorData, number>();
let nextIdentity = 0;

export const constantOperation: Operation<ConstantAttributes> = {
  name: "constant",
  semantics: "a tensor known when the graph is built",
  infer: (_inputs, { shape, dtype, data }) => {
    if (data.length !== sizeOf(shape)) {
      throw new EspalierError(
        "invalid-graph",
        `constant: expected ${sizeOf(shape)} elements for [${shape.join(",")}], got ${data.length}`,
      );
    }
    return { shape, dtype };
  },
  evaluate: (_inputs, value) => Float64Array.from(value.attributes.data, Number),
  onnx: (builder: OnnxBuilder, _inputs, value) =>
    builder.tensor(value.shape, value.dtype, value.attributes.data),
  couple: ({ shape }) => shape.map(() => undefined),
  key: ({ shape, dtype, data }) => {
    if (data.length <= COMPARED_ELEMENTS) return `${dtype}[${shape}]${data.join()}`;
    let identity = identities.get(data);
    if (identity === undefined) identities.set(data, (identity = nextIdentity++));
    return `${dtype}[${shape}]#${identity}`;
  },
};

/** A tensor known now. `data` is not copied and must not be changed afterwards. */
export function constant(shape: Shape, data: Float32Array): Value<ConstantAttributes> {
  return apply(constantOperation, [], { shape, dtype: "float32", data });
}

/** A tensor of integers known now. */
export function integers(shape: Shape, values: Iterable<number>): Value<ConstantAttributes> {
  const data = BigInt64Array.from([...values].map(BigInt));
  return apply(constantOperation, [], { shape, dtype: "int64", data });
}

export function isConstant(value: Value): value is Value<ConstantAttributes> {
  return value.operation === constantOperation;
}

/** A float32 scalar (shape []). */
export function scalar(value: number): Value<ConstantAttributes> {
  return constant([], Float32Array.of(value));
}
