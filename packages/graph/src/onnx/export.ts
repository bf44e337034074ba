/** @file Models for inference as ONNX files, for batches of any size. */
import { EspalierError } from "@espalier/base";
import { simplify } from "../passes.ts";
import type { TensorData, Value } from "../value.ts";
import type { OnnxGraph, OnnxNode, OnnxTensor } from "./builder.ts";
import { encodeOnnx } from "./encode.ts";
import { lowerToOnnx } from "./lower.ts";
import { tidyForInference } from "./tidy.ts";

/** A model applied to one batch. */
export interface InferenceGraph {
  /** What to compute, under the names that the file shall have for it. */
  readonly outputs: Readonly<Record<string, Value>>;
  /** The parameters: tensors bound to inputs of the graph. */
  readonly constants: ReadonlyMap<Value, TensorData>;
}

export interface ExportOptions {
  /** Stored as the model's properties. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** A file of `inferenceOnnx(build)`. */
export function exportOnnx(
  build: (batch: number, length: number) => InferenceGraph,
  options: ExportOptions = {},
): Uint8Array {
  return encodeOnnx(inferenceOnnx(build), options.metadata);
}

// Primes, so that no other dimension is a multiple of them by chance.
const BATCHES = [1009, 1013] as const;
const LENGTHS = [1019, 1021] as const;

/**
 * An ONNX model whose inputs and outputs have an open first dimension, "batch", and if it is one of
 * sequences an open second dimension, "sequence", ready to be encoded or converted.
 *
 * @param build Builds the model for a given batch size, and for sequences of a given length. Nothing
 *   runs at these sizes, which are large.
 * @throws EspalierError `invalid-graph` naming the first node that depends on them.
 */
export function inferenceOnnx(build: (batch: number, length: number) => InferenceGraph): OnnxGraph {
  const [graph, other] = BATCHES.map((batch, i) => {
    const length = LENGTHS[i];
    const { outputs, constants } = build(batch, length);
    const values = simplify(Object.values(outputs));
    const named = Object.keys(outputs).map((name, i) => [name, values[i]]);
    return lowerToOnnx(Object.fromEntries(named), {
      constants,
      openBatch: batch,
      openLength: length,
    });
  });
  // Equal graphs are tidied alike.
  requireEqual(graph, other);
  return tidyForInference(graph);
}

function requireEqual(graph: OnnxGraph, other: OnnxGraph): void {
  const fail = (what: string) => {
    const message = `${what} differs between batches of ${BATCHES.join(" and ")}: the size is built in`;
    return new EspalierError("invalid-graph", message);
  };
  graph.nodes.forEach((node, i) => {
    if (!sameNode(node, graph, other.nodes[i], other)) {
      throw fail(`node ${node.outputs[0]} (${node.type})`);
    }
  });
  for (const ports of ["inputs", "outputs"] as const) {
    graph[ports].forEach((port, i) => {
      if (JSON.stringify(port) !== JSON.stringify(other[ports][i])) throw fail(port.name);
    });
  }
}

/** Whether two nodes of two graphs are equal, and the tensors they use. */
function sameNode(
  node: OnnxNode,
  graph: OnnxGraph,
  other: OnnxNode | undefined,
  otherGraph: OnnxGraph,
): boolean {
  return (
    JSON.stringify(node) === JSON.stringify(other) &&
    node.inputs.every((name) => sameTensor(graph.tensors.get(name), otherGraph.tensors.get(name)))
  );
}

function sameTensor(tensor: OnnxTensor | undefined, other: OnnxTensor | undefined): boolean {
  if (tensor === undefined || other === undefined) return tensor === other;
  return (
    tensor.dtype === other.dtype &&
    tensor.shape.join() === other.shape.join() &&
    sameBytes(tensor.data, other.data)
  );
}

function sameBytes(data: TensorData, other: TensorData): boolean {
  // Parameters are the same memory in both graphs.
  if (data === other) return true;
  const bytes = (of: TensorData) => new Uint8Array(of.buffer, of.byteOffset, of.byteLength);
  const expected = bytes(other);
  return bytes(data).every((byte, i) => byte === expected[i]);
}
