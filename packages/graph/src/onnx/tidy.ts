/** @file Lowered graphs made ready for inference: what can be computed once is, and names are clean. */
import { EspalierError } from "@espalier/base";
import { interpret } from "../interpret.ts";
import { add, divide, multiply, negate, sqrt, subtract } from "../ops/elementwise.ts";
import { constantOperation, isConstant, scalar } from "../ops/leaf.ts";
import { broadcastTo, reshape, slice } from "../ops/shape.ts";
import { apply, type Value } from "../value.ts";
import type { OnnxGraph, OnnxNode, OnnxTensor } from "./builder.ts";
import {
  type Constant,
  channelAxis,
  channelsOf,
  countUses,
  type Draft,
  isContraction,
  isFolded,
  isName,
  weightOf,
} from "./draft.ts";
import { mergeRows } from "./merge-rows.ts";
import { Ranges } from "./node-reader.ts";
import { readNode } from "./operators.ts";

/**
 * The same function, as inference needs it:
 *
 * - nodes without variable inputs are computed now;
 * - BatchNormalization, and Add and Sub of one number per channel, become part of the Conv or Gemm
 *   that they follow, through a Concat of channels too;
 * - convolutions side by side, and zeros among their channels, become one convolution (`mergeRows`);
 * - unused tensors are dropped;
 * - nodes and tensors are called after the parameters they come from.
 */
export function tidyForInference(graph: OnnxGraph): OnnxGraph {
  const outputs = new Set(graph.outputs.map(({ name }) => name));
  const folded = foldConstants(graph.nodes, graph.tensors, outputs);
  const merged = mergeRows(absorbAffine(folded, outputs), outputs);
  return rename(merged, graph);
}

// What is worth computing once, and makes no large tensor from small ones.
const FOLDED = new Set([
  ...["Add", "Div", "Identity", "Mul", "Neg", "Reciprocal"],
  ...["Reshape", "Slice", "Sqrt", "Sub", "Transpose"],
]);

function foldConstants(
  nodes: readonly OnnxNode[],
  tensors: OnnxGraph["tensors"],
  outputs: ReadonlySet<string>,
): Draft[] {
  const constants = new Map(
    [...tensors].map(([name, tensor]): [string, Constant] => [
      name,
      { name, value: apply(constantOperation, [], { ...tensor }) },
    ]),
  );
  const ranges = new Ranges();
  const fail = (message: string) => new EspalierError("invalid-graph", message);
  return nodes.flatMap((node) => {
    const inputs = node.inputs.map((name) => constants.get(name) ?? name);
    const [output] = node.outputs;
    if (FOLDED.has(node.type) && inputs.every(isFolded) && !outputs.has(output)) {
      const operands = inputs.map(({ value }) => value);
      const [value] = readNode(node, operands, ranges, fail);
      if (value.dtype === "float32") {
        constants.set(output, { value, name: inputs[0].name });
        return [];
      }
    }
    return [{ ...node, inputs }];
  });
}

/** Makes nodes that scale or shift channels part of the convolutions that produce these. */
function absorbAffine(nodes: readonly Draft[], outputs: ReadonlySet<string>): Draft[] {
  const uses = countUses(nodes, outputs);
  const producers = new Map<string, Draft>();

  /** The nodes whose output channels, one after the other, are those of a tensor used only here. */
  const contractionsOf = (tensor: string): readonly Draft[] | undefined => {
    const producer = producers.get(tensor);
    if (producer === undefined || uses.get(tensor) !== 1) return undefined;
    if (isContraction(producer)) return [producer];
    if (producer.type !== "Concat" || producer.attributes.axis !== 1) return undefined;
    const parts = producer.inputs.map((input) =>
      isName(input) ? contractionsOf(input) : undefined,
    );
    return parts.every((part) => part !== undefined) ? parts.flat() : undefined;
  };

  return nodes.filter((node) => {
    const input = node.inputs.find(isName);
    const targets = input === undefined ? undefined : contractionsOf(input);
    const affine = targets === undefined ? undefined : affineOf(node, targets);
    if (input === undefined || targets === undefined || affine === undefined) {
      for (const name of node.outputs) producers.set(name, node);
      return true;
    }
    let start = 0;
    for (const target of targets) {
      const end = start + channelsOf(target);
      absorb(target, {
        factor: affine.factor && slice(affine.factor, 0, start, end),
        shift: slice(affine.shift, 0, start, end),
        name: targets.length === 1 ? affine.name : undefined,
      });
      start = end;
    }
    const producer = producers.get(input)!;
    producer.outputs = node.outputs;
    producers.set(node.outputs[0], producer);
    return false;
  });
}

/** y = factor · x + shift, per channel: vectors of as many numbers. */
interface Affine {
  readonly factor?: Value | undefined;
  readonly shift: Value;
  /** Of the tensor that `shift` is. */
  readonly name?: string | undefined;
}

/** What `node` does to the channels of `targets`, if that is all it does. */
function affineOf(node: Draft, targets: readonly Draft[]): Affine | undefined {
  const { type, attributes } = node;
  const [first, second] = node.inputs;
  const constants = node.inputs.filter(isFolded).map(({ value }) => value);
  if (type === "BatchNormalization" && isName(first) && constants.length === 4) {
    const [scale, bias, average, variance] = constants;
    const { epsilon = 1e-5, training_mode: usesBatch = 0 } = attributes;
    if (usesBatch !== 0) return undefined;
    const factor = divide(scale, sqrt(add(variance, scalar(Number(epsilon)))));
    return { factor, shift: subtract(bias, multiply(average, factor)) };
  }
  const adds = type === "Add" || (type === "Sub" && isName(first));
  const term = [first, second].find(isFolded);
  if (!adds || term === undefined) return undefined;
  const channels = targets.reduce((total, target) => total + channelsOf(target), 0);
  const rank = weightOf(targets[0]).value.shape.length;
  const shift = perChannelVector(term.value, rank, channels);
  if (shift === undefined) return undefined;
  return type === "Add" ? { shift, name: term.name } : { shift: negate(shift) };
}

/** `value` as [channels], if it has one number for each channel (axis 1) of a tensor of `rank`. */
function perChannelVector(value: Value, rank: number, channels: number): Value | undefined {
  const lead = rank - value.shape.length;
  const size = value.shape[1 - lead] ?? 1;
  const elements = value.shape.reduce((a, b) => a * b, 1);
  if (lead < 0 || elements !== size || (size !== 1 && size !== channels)) return undefined;
  return broadcastTo(reshape(value, [size]), [channels]);
}

function absorb(contraction: Draft, { factor, shift, name }: Affine): void {
  const weight = weightOf(contraction);
  const bias = contraction.inputs[2] as Constant | undefined;
  let scaled = bias?.value;
  if (factor !== undefined) {
    const axis = channelAxis(contraction);
    const shape = weight.value.shape.map((n, i) => (i === axis ? n : 1));
    const value = multiply(weight.value, reshape(factor, shape));
    contraction.inputs[1] = { value, name: weight.name };
    scaled = scaled && multiply(scaled, factor);
  }
  contraction.inputs[2] = {
    value: scaled === undefined ? shift : add(scaled, shift),
    name: bias?.name ?? name ?? `${layerOf(weight.name) ?? weight.name}.bias`,
  };
}

/** The layer that a weight belongs to. */
function layerOf(weight: string): string | undefined {
  return weight.endsWith(".weight") ? weight.slice(0, -".weight".length) : undefined;
}

/** The graph with its constants evaluated and every tensor under its final name. */
function rename(nodes: readonly Draft[], { inputs, outputs }: OnnxGraph): OnnxGraph {
  // Inputs that are left out have empty names.
  const names = new Map<Constant | string, string>([["", ""]]);
  const taken = new Set<string>();
  const counts = new Map<string, number>();
  const name = (what: Constant | string, wanted: string) => {
    let chosen = wanted;
    while (taken.has(chosen)) {
      const count = (counts.get(wanted) ?? 0) + 1;
      counts.set(wanted, count);
      chosen = `${wanted}_${count}`;
    }
    taken.add(chosen);
    names.set(what, chosen);
  };
  for (const port of [...inputs, ...outputs]) name(port.name, port.name);
  const constants = new Set(nodes.flatMap((node) => node.inputs).filter(isFolded));
  // Tensors that still are the parameters of their names come first.
  const [changed, original] = [false, true].map((wanted) =>
    [...constants].filter(({ value }) => isConstant(value) === wanted),
  );
  for (const constant of [...original, ...changed]) name(constant, constant.name);
  for (const { type, inputs: operands, outputs: results } of nodes) {
    const weight = operands[1];
    const layer = weight === undefined || isName(weight) ? undefined : layerOf(weight.name);
    for (const result of results) if (!names.has(result)) name(result, layer ?? type);
  }
  const finalName = (what: Constant | string) => names.get(what)!;
  return {
    inputs,
    outputs,
    nodes: nodes.map((node) => ({
      ...node,
      inputs: node.inputs.map(finalName),
      outputs: node.outputs.map(finalName),
    })),
    tensors: new Map([...constants].map((constant) => [finalName(constant), evaluate(constant)])),
  };
}

function evaluate({ value }: Constant): OnnxTensor {
  if (isConstant(value)) return value.attributes;
  const [{ shape, data }] = interpret([value], new Map());
  return { dtype: "float32", shape, data: Float32Array.from(data) };
}
