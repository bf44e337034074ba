/** @file Floating-point operations as HAP's code counts them, to compare with its figures. */
import { EspalierError } from "@espalier/base";
import type { Model } from "@espalier/core";
import { sizeOf, topologicalOrder, type Value } from "@espalier/graph";

/** What may be counted beside convolutions, linear layers and batch normalisation. */
const optional = {
  relu: ({ shape }) => sizeOf(shape),
  maxPool: ({ shape, attributes }) =>
    sizeOf(shape) * sizeOf((attributes as { kernel: readonly number[] }).kernel),
  // An average over the whole plane, written as a pool.
  mean: ({ inputs }) => sizeOf(inputs[0].shape),
} as const satisfies Readonly<Record<string, (value: Value) => number>>;

export type CountedOperation = keyof typeof optional;

export const countedOperations = Object.keys(optional) as CountedOperation[];

/**
 * What `utils/compute_flops.py` of HAP's code would print for `model` and one sample: 2 for each
 * multiply-accumulate of a convolution or linear layer, 1 for each element that a bias is added to, 2
 * for each element that is normalised. It hooks modules, so that activations and pools are counted in
 * the networks that have them as modules, and not where they are called as functions: `also` says
 * which. Additions of branches are never counted.
 *
 * @throws EspalierError `mismatched-model` for a model that has other inputs than images.
 */
export function hapFlops(model: Model, also: readonly CountedOperation[]): number {
  if (model.preprocessing.kind !== "image") {
    throw new EspalierError(
      "mismatched-model",
      `HAP's count of operations: expected a network for images, got one for ${model.preprocessing.kind}s`,
    );
  }
  const { logits, parameters } = model.build(1, "evaluation");
  const biases = new Set(
    [...parameters].flatMap(([name, value]) =>
      model.parameters.get(name)!.kind === "bias" ? [value] : [],
    ),
  );
  const count = (value: Value): number => {
    const { name, macs } = value.operation;
    if (macs !== undefined) return 2 * macs(value);
    if (name === "batchNorm") return 2 * sizeOf(value.shape);
    if (value.inputs.some((operand) => biases.has(operand))) return sizeOf(value.shape);
    const known = also.find((each) => each === name);
    return known === undefined ? 0 : optional[known](value);
  };
  return topologicalOrder([logits]).reduce((sum, value) => sum + count(value), 0);
}
