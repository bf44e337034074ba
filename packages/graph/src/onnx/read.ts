/** @file ONNX models as graphs of values. */
import { EspalierError, quote } from "@espalier/base";
import { constantOperation, input } from "../ops/leaf.ts";
import { apply, sizeOf, type Value } from "../value.ts";
import type { OnnxGraph, OnnxPort } from "./builder.ts";
import { decodeOnnx, LARGEST_TENSOR } from "./decode.ts";
import { type Fail, failIn } from "./invalid-file.ts";
import { Ranges } from "./node-reader.ts";
import { readNode } from "./operators.ts";

export interface ReadOnnxOptions {
  /** The size of the first dimension of inputs, where the model leaves it open. */
  readonly batch?: number;
  /** The size of the second, where the model leaves it open as the length of sequences. */
  readonly length?: number;
}

/** An ONNX model in terms of our operations. */
export interface OnnxValues {
  readonly inputs: Readonly<Record<string, Value>>;
  readonly outputs: Readonly<Record<string, Value>>;
  /** The model's properties. */
  readonly metadata: Readonly<Record<string, string>>;
}

/**
 * Reads an ONNX model: its inputs become `input`s, its initializers `constant`s. All operators that
 * `lowerToOnnx` emits are supported. Indices known only when the model runs must not be negative.
 *
 * @param origin What to call the file in messages.
 * @throws EspalierError `invalid-file` naming the file and the tensor, or the node and its operator,
 *   that is not valid or not supported; `invalid-argument` if the model leaves a dimension open
 *   and the option for it is not a size.
 */
export function readOnnx(
  bytes: Uint8Array,
  origin: string,
  options: ReadOnnxOptions = {},
): OnnxValues {
  const { graph, metadata } = decodeOnnx(bytes, origin);
  const values = graphValues(graph, origin, options);
  const named = (ports: readonly OnnxPort[]) =>
    Object.fromEntries(ports.map(({ name }) => [name, values.get(name)!]));
  return { inputs: named(graph.inputs), outputs: named(graph.outputs), metadata };
}

/** What each tensor of a graph is, by its name; as `readOnnx`. */
export function graphValues(
  graph: OnnxGraph,
  origin: string,
  options: ReadOnnxOptions = {},
): ReadonlyMap<string, Value> {
  const fail = failIn(origin);
  const values = new Map<string, Value>();
  for (const [name, tensor] of graph.tensors) {
    values.set(name, apply(constantOperation, [], { ...tensor }));
  }
  for (const port of graph.inputs) values.set(port.name, readInput(port, options, fail));
  const ranges = new Ranges();
  for (const node of graph.nodes) {
    const operands = node.inputs.map((name) => values.get(name));
    const results = readNode(node, operands, ranges, fail);
    node.outputs.forEach((name, i) => {
      if (name !== "") values.set(name, results[i]);
    });
  }
  return values;
}

function readInput({ name, dtype, shape }: OnnxPort, options: ReadOnnxOptions, fail: Fail): Value {
  const what = `input ${quote(name)}`;
  const sizes = shape.map((size, axis) => {
    if (typeof size === "number") return size;
    const option = (["batch", "length"] as const)[axis];
    if (option === undefined || (option === "length" && size !== "sequence")) {
      throw fail(`${what}: expected dimension ${axis} to be known, got ${quote(size)}`);
    }
    const given = options[option];
    if (given === undefined || !Number.isInteger(given) || given < 1) {
      const message = `${what} leaves the ${option} dimension open: expected the option ${option} to give its size, got ${given ?? "none"}`;
      throw new EspalierError("invalid-argument", message, { input: name });
    }
    return given;
  });
  if (!sizes.every((n) => n > 0) || sizeOf(sizes) > LARGEST_TENSOR) {
    throw fail(`${what}: expected 1 to ${LARGEST_TENSOR} elements, got [${sizes}]`);
  }
  return input(name, sizes, dtype);
}
