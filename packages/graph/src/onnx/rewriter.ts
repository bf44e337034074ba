/** @file A copy of a graph in progress, with other nodes and tensors. */
import type { OnnxAttribute, OnnxGraph, OnnxNode, OnnxTensor, StoredType } from "./builder.ts";

/** Collects the nodes and tensors of a graph made from another one. */
export class Rewriter {
  readonly #source: OnnxGraph;
  readonly #nodes: OnnxNode[] = [];
  readonly #tensors = new Map<string, OnnxTensor<StoredType>>();
  readonly #taken: Set<string>;

  constructor(source: OnnxGraph) {
    this.#source = source;
    const { inputs, outputs, nodes, tensors } = source;
    this.#taken = new Set([
      ...[...inputs, ...outputs].map(({ name }) => name),
      ...nodes.flatMap((node) => node.outputs),
      ...tensors.keys(),
    ]);
  }

  /** A name that nothing has yet. */
  name(wanted: string): string {
    let name = wanted;
    for (let count = 1; this.#taken.has(name); count++) name = `${wanted}_${count}`;
    this.#taken.add(name);
    return name;
  }

  /** Adds a node as it is. */
  keep(node: OnnxNode): void {
    this.#nodes.push(node);
  }

  /** Adds a node; its outputs are called after `wanted`, and the first of them is returned. */
  node(
    type: string,
    inputs: readonly string[],
    wanted: string,
    attributes: Readonly<Record<string, OnnxAttribute>> = {},
  ): string {
    return this.nodes(type, inputs, [wanted], attributes)[0];
  }

  nodes(
    type: string,
    inputs: readonly string[],
    wanted: readonly string[],
    attributes: Readonly<Record<string, OnnxAttribute>> = {},
  ): string[] {
    const outputs = wanted.map((each) => this.name(each));
    this.#nodes.push({ type, domain: "", inputs, outputs, attributes });
    return outputs;
  }

  tensor(wanted: string, tensor: OnnxTensor<StoredType>): string {
    const name = this.name(wanted);
    this.#tensors.set(name, tensor);
    return name;
  }

  /** The finished graph, with those tensors of the source that are still used. */
  graph(): OnnxGraph<StoredType> {
    const tensors = new Map(this.#tensors);
    for (const name of this.#nodes.flatMap(({ inputs }) => inputs)) {
      const tensor = this.#source.tensors.get(name);
      if (tensor !== undefined) tensors.set(name, tensor);
    }
    const { inputs, outputs } = this.#source;
    return { inputs, outputs, nodes: this.#nodes, tensors };
  }
}
