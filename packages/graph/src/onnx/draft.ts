/** @file ONNX graphs while they are made ready for inference. */
import type { Value } from "../value.ts";
import type { OnnxAttribute } from "./builder.ts";

/**
 * A tensor that no input changes, as an expression: evaluated in float64 once nothing more is folded
 * into it, so that it is rounded once.
 */
export interface Constant {
  readonly value: Value;
  /** What it should be called, if that is free. */
  readonly name: string;
}

export interface Draft {
  readonly type: string;
  readonly domain: string;
  /** Other inputs than constants by the names of their tensors. */
  readonly inputs: (Constant | string)[];
  outputs: readonly string[];
  readonly attributes: Readonly<Record<string, OnnxAttribute>>;
}

export const isName = (input: Constant | string) => typeof input === "string";
export const isFolded = (input: Constant | string) => typeof input !== "string";

/** Whether a node is a convolution or linear layer with constant parameters. */
export function isContraction({ type, inputs, attributes }: Draft): boolean {
  if (!inputs.slice(1).every(isFolded)) return false;
  const { alpha = 1, beta = 1 } = attributes;
  return type === "Conv" || (type === "Gemm" && alpha === 1 && beta === 1);
}

/** The axis of the weight that its output channels are on; that of the output is 1. */
export function channelAxis({ type, attributes }: Draft): number {
  return type === "Gemm" && !attributes.transB ? 1 : 0;
}

export function weightOf(contraction: Draft): Constant {
  return contraction.inputs[1] as Constant;
}

export function channelsOf(contraction: Draft): number {
  return weightOf(contraction).value.shape[channelAxis(contraction)];
}

/** How often each tensor is read, outputs of the graph included. */
export function countUses(
  nodes: readonly Draft[],
  outputs: ReadonlySet<string>,
): ReadonlyMap<string, number> {
  const uses = new Map<string, number>();
  for (const name of [...outputs, ...nodes.flatMap(({ inputs }) => inputs).filter(isName)]) {
    uses.set(name, (uses.get(name) ?? 0) + 1);
  }
  return uses;
}
