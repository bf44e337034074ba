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

export interface OnnxTensor {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly data: TensorData;
}

/** The name, type and shape of an input or output; a string stands for a dimension left open. */
export interface OnnxPort {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly (number | string)[];
}

export interface OnnxGraph {
  readonly inputs: readonly OnnxPort[];
  readonly outputs: readonly OnnxPort[];
  readonly nodes: readonly OnnxNode[];
  readonly tensors: ReadonlyMap<string, OnnxTensor>;
}

export class OnnxBuilder {
  readonly nodeList: OnnxNode[] = [];
  readonly tensors = new Map<string, OnnxTensor>();
  readonly #known = new Map<string, readonly string[]>();
  readonly #batch: number | undefined;
  readonly #reserved: ReadonlySet<string>;
  #count = 0;

  /**
   * @param batch The size that stands for an open batch dimension, if there is one.
   * @param reserved Names that are given already.
   */
  constructor(batch?: number, reserved: ReadonlySet<string> = new Set()) {
    this.#batch = batch;
    this.#reserved = reserved;
  }

  /** Adds a node of ONNX's operator `type` with one output, whose name is returned. */
  node(
    type: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, OnnxAttribute>> = {},
  ): string {
    return this.nodes(type, inputs, 1, attributes)[0];
  }

  /** Adds a node with `outputCount` outputs. */
  nodes(
    type: string,
    inputs: readonly string[],
    outputCount: number,
    attributes: Readonly<Record<string, OnnxAttribute>> = {},
  ): readonly string[] {
    const key = `${type}(${inputs})${JSON.stringify(attributes)}${outputCount}`;
    let outputs = this.#known.get(key);
    if (outputs === undefined) {
      outputs = Array.from({ length: outputCount }, () => this.#newName(type));
      this.nodeList.push({ type, domain: "", inputs, outputs, attributes });
      this.#known.set(key, outputs);
    }
    return outputs;
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
    const batch = this.#batch;
    const target = [...to];
    if (batch !== undefined && from.length > 0 && to.length > 0) {
      if (from[0] % batch === 0 && to[0] % batch === 0) target[0] = from[0] === to[0] ? 0 : -1;
    }
    return this.node("Reshape", [x, this.ints(target)]);
  }

  #newName(prefix: string): string {
    const name = `${prefix}_${this.#count++}`;
    return this.#reserved.has(name) ? this.#newName(prefix) : name;
  }
}
