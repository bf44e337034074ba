/** @file Graphs of values to graphs of ONNX operators. */
import { EspalierError } from "@espalier/base";
import { isInput } from "../ops/leaf.ts";
import { type TensorData, topologicalOrder, type Value } from "../value.ts";
import {
  type ConvEmitter,
  type MatmulEmitter,
  OnnxBuilder,
  type OnnxGraph,
  type OnnxNode,
  type OnnxPort,
} from "./builder.ts";

export interface LowerOptions {
  /** Tensors bound to inputs: they become initializers under the inputs' names. */
  readonly constants?: ReadonlyMap<Value, TensorData>;
  /**
   * Leaves the first dimension of inputs and outputs of this size open, under the name "batch".
   * The graph must have been built with it, and must treat samples alike.
   */
  readonly openBatch?: number;
  /** The same for the second dimension of inputs, under the name "sequence". */
  readonly openLength?: number;
  /** How the runtime in question likes convolutions whose weights change. */
  readonly emitConv?: ConvEmitter | undefined;
  /** And matrix products. */
  readonly emitMatmul?: MatmulEmitter | undefined;
}

/**
 * @param outputs The values to compute, under the names the model shall have for them.
 * @throws EspalierError `invalid-graph` if two different inputs share a name, or an input and an
 *   output.
 */
export function lowerToOnnx(
  outputs: Readonly<Record<string, Value>>,
  options: LowerOptions = {},
): OnnxGraph {
  const { constants, openBatch, openLength, emitConv, emitMatmul } = options;
  const order = topologicalOrder(Object.values(outputs));
  const reserved = new Set(Object.keys(outputs));
  for (const { attributes } of order.filter(isInput)) {
    const { name } = attributes;
    if (reserved.has(name)) {
      throw new EspalierError("invalid-graph", `two inputs or outputs are called ${name}`, {
        name,
      });
    }
    reserved.add(name);
  }
  const builder = new OnnxBuilder({
    batch: openBatch,
    length: openLength,
    reserved,
    emitConv,
    emitMatmul,
  });
  const names = new Map<Value, string>();
  const inputs: OnnxPort[] = [];
  const port = (name: string, { dtype, shape }: Value): OnnxPort => ({
    name,
    dtype,
    shape: shape.map((n, axis) => {
      if (axis === 0 && n === openBatch) return "batch";
      return axis === 1 && n === openLength ? "sequence" : n;
    }),
  });
  for (const value of order) {
    const operands = value.inputs.map((operand) => names.get(operand)!);
    names.set(value, value.operation.onnx(builder, operands, value));
    if (!isInput(value)) continue;
    const { name } = value.attributes;
    const data = constants?.get(value);
    if (data === undefined) inputs.push(port(name, value));
    else builder.tensor(value.shape, value.dtype, data, name);
  }
  const produced = new Set(builder.nodeList.flatMap((node) => node.outputs));
  const renamed = new Map<string, string>();
  const ports = Object.entries(outputs).map(([name, value]) => {
    const internal = names.get(value)!;
    // Names of outputs are given by the caller, but a tensor has one, and inputs have theirs. Copies
    // of millions of parameters take time.
    if (produced.has(internal) && !renamed.has(internal)) renamed.set(internal, name);
    else {
      const node = { type: "Identity", domain: "", inputs: [internal], outputs: [name] };
      builder.nodeList.push({ ...node, attributes: {} });
    }
    return port(name, value);
  });
  const finalName = (name: string) => renamed.get(name) ?? name;
  const nodes = builder.nodeList.map((node) => ({
    ...node,
    inputs: node.inputs.map(finalName),
    outputs: node.outputs.map(finalName),
  }));
  const needed = neededNodes(nodes, new Set(Object.keys(outputs)));
  return { inputs, outputs: ports, nodes: needed, tensors: builder.tensors };
}

/** The nodes that `outputs` depend on. */
function neededNodes(nodes: readonly OnnxNode[], outputs: ReadonlySet<string>): OnnxNode[] {
  const needed = new Set(outputs);
  const kept = nodes.toReversed().filter((node) => {
    const used = node.outputs.some((name) => needed.has(name));
    if (used) for (const name of node.inputs) needed.add(name);
    return used;
  });
  return kept.reverse();
}
