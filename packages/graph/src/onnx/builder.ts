/** @file Collects the nodes of an ONNX graph. Equal nodes and equal tensors are stored once. */
import type { DType, Shape, TensorData } from "../value.ts";

export type OnnxAttribute = number | string | readonly number[];

export interface OnnxNode {
  readonly type: string;
  readonly domain: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Readonly<Record<string, OnnxAttribute>>;
}

/** Types that tensors of a file may have beside those of values. A float16 is kept as its bits. */
export interface StoredDataTypes {
  float16: Uint16Array;
  int8: Int8Array;
  int32: Int32Array;
  uint8: Uint8Array;
}
export type StoredType = DType | keyof StoredDataTypes;
export type StoredData = TensorData | StoredDataTypes[keyof StoredDataTypes];

export interface OnnxTensor<Type extends StoredType = DType> {
  readonly dtype: Type;
  readonly shape: Shape;
  readonly data: Type extends DType ? TensorData : StoredData;
}

/** The name, type and shape of an input or output; a string stands for a dimension left open. */
export interface OnnxPort {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly (number | string)[];
}

export interface OnnxGraph<Type extends StoredType = DType> {
  readonly inputs: readonly OnnxPort[];
  readonly outputs: readonly OnnxPort[];
  readonly nodes: readonly OnnxNode[];
  readonly tensors: ReadonlyMap<string, OnnxTensor<Type>>;
}

/** Attributes of ONNX's Conv. */
export interface ConvAttributes extends Readonly<Record<string, OnnxAttribute>> {
  readonly kernel_shape: readonly number[];
  readonly strides: readonly number[];
  readonly pads: readonly number[];
  readonly dilations: readonly number[];
  readonly group: number;
}

/**
 * Emits a convolution in another way than by one Conv node. `weight` [K, C / group, kh, kw] has the
 * shape `shape`. Undefined where it has no better way.
 */
export type ConvEmitter = (
  builder: OnnxBuilder,
  x: string,
  weight: string,
  shape: Shape,
  attributes: ConvAttributes,
) => string | undefined;

/** Emits a matrix product in another way than by one MatMul node. Undefined where it has no better way. */
export type MatmulEmitter = (builder: OnnxBuilder, a: string, b: string) => string | undefined;

export interface BuilderOptions {
  /** The size that stands for an open batch dimension, if there is one. */
  readonly batch?: number | undefined;
  /** The size that stands for an open length of sequences, which is axis 1 of inputs. */
  readonly length?: number | undefined;
  /** Names that are given already. */
  readonly reserved?: ReadonlySet<string> | undefined;
  /** For convolutions whose weights are not constant. */
  readonly emitConv?: ConvEmitter | undefined;
  readonly emitMatmul?: MatmulEmitter | undefined;
}

export class OnnxBuilder {
  readonly nodeList: OnnxNode[] = [];
  readonly tensors = new Map<string, OnnxTensor>();
  readonly #producers = new Map<string, OnnxNode>();
  readonly #known = new Map<string, readonly string[]>();
  /** Results that depend on initializers alone. */
  readonly #constant = new Set<string>();
  readonly #options: BuilderOptions;
  #count = 0;

  constructor(options: BuilderOptions = {}) {
    this.#options = options;
  }

  /** Adds a node of the operator `type` with one output, whose name is returned. */
  node(
    type: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, OnnxAttribute>> = {},
    domain = "",
  ): string {
    return this.nodes(type, inputs, 1, attributes, domain)[0];
  }

  /** Adds a node with `outputCount` outputs. The domain of ONNX's own operators is "". */
  nodes(
    type: string,
    inputs: readonly string[],
    outputCount: number,
    attributes: Readonly<Record<string, OnnxAttribute>> = {},
    domain = "",
  ): readonly string[] {
    const key = `${domain}:${type}(${inputs})${JSON.stringify(attributes)}${outputCount}`;
    let outputs = this.#known.get(key);
    if (outputs === undefined) {
      outputs = Array.from({ length: outputCount }, () => this.#newName(type));
      const added = { type, domain, inputs, outputs, attributes };
      this.nodeList.push(added);
      for (const output of outputs) this.#producers.set(output, added);
      this.#known.set(key, outputs);
      if (inputs.every((name) => this.#isConstant(name))) {
        for (const output of outputs) this.#constant.add(output);
      }
    }
    return outputs;
  }

  /** A convolution with `weight` of the given shape. */
  conv(x: string, weight: string, shape: Shape, attributes: ConvAttributes): string {
    const other = this.#isConstant(weight)
      ? undefined
      : this.#options.emitConv?.(this, x, weight, shape, attributes);
    return other ?? this.node("Conv", [x, weight], attributes);
  }

  /** A matrix product of the last two axes. */
  matmul(a: string, b: string): string {
    return this.#options.emitMatmul?.(this, a, b) ?? this.node("MatMul", [a, b]);
  }

  /** Rows of zeros with a one at each of `indices`, along a new last axis. */
  oneHot(indices: string, depth: number): string {
    const inputs = [indices, this.ints([depth]), this.floats([2], [0, 1])];
    return this.node("OneHot", inputs, { axis: -1 });
  }

  /** The node that makes `name`, if one does. */
  producerOf(name: string): OnnxNode | undefined {
    return this.#producers.get(name);
  }

  #isConstant(name: string): boolean {
    return this.tensors.has(name) || this.#constant.has(name);
  }

  /** An initializer; `name` where other tools should find it. */
  tensor(shape: Shape, dtype: DType, data: TensorData, name?: string): string {
    const key = data.length <= 4096 ? `tensor ${dtype}[${shape}]${data.join()}` : undefined;
    const known = key === undefined || name !== undefined ? undefined : this.#known.get(key);
    if (known !== undefined) return known[0];
    const chosen = name ?? this.#newName("constant");
    this.tensors.set(chosen, { shape, dtype, data });
    if (key !== undefined) this.#known.set(key, [chosen]);
    return chosen;
  }

  /** A vector of int64. */
  ints(values: readonly number[]): string {
    return this.tensor([values.length], "int64", BigInt64Array.from(values.map(BigInt)));
  }

  /** A float32 scalar. */
  scalar(value: number): string {
    return this.tensor([], "float32", Float32Array.of(value));
  }

  floats(shape: Shape, values: readonly number[]): string {
    return this.tensor(shape, "float32", Float32Array.from(values));
  }

  /** `x` of shape `from` under the shape `to`. With an open batch, leading dimensions stay open. */
  reshape(x: string, from: Shape, to: Shape): string {
    const { batch, length } = this.#options;
    const target = [...to];
    if (batch !== undefined && from.length > 0 && to.length > 0) {
      if (from[0] % batch === 0 && to[0] % batch === 0) target[0] = from[0] === to[0] ? 0 : -1;
    }
    if (length !== undefined) {
      const open = to.findIndex((n, axis) => axis > 0 && n === length);
      if (open > 0 && from.includes(length)) target[open] = from[open] === length ? 0 : -1;
    }
    return this.node("Reshape", [x, this.ints(target)]);
  }

  #newName(prefix: string): string {
    const name = `${prefix}_${this.#count++}`;
    return this.#options.reserved?.has(name) ? this.#newName(prefix) : name;
  }
}
