/** @file The reference: runs a graph node by node in float64. */
import { EspalierError } from "@espalier/base";
import { isInput } from "./ops/leaf.ts";
import { type NdArray, sizeOf, topologicalOrder, type Value } from "./value.ts";

/**
 * Evaluates `outputs`. `feeds` holds the elements of every input, row-major.
 *
 * @throws EspalierError `invalid-graph` for an input without a feed or with one of the wrong length.
 */
export function interpret(
  outputs: readonly Value[],
  feeds: ReadonlyMap<Value, ArrayLike<number>>,
): NdArray[] {
  const results = new Map<Value, NdArray>();
  for (const value of topologicalOrder(outputs)) {
    const feed = feeds.get(value);
    if (isInput(value) && feed?.length !== sizeOf(value.shape)) {
      throw new EspalierError(
        "invalid-graph",
        `input ${value.attributes.name}: expected ${sizeOf(value.shape)} elements, got ${feed?.length ?? "none"}`,
      );
    }
    const data =
      feed !== undefined
        ? Float64Array.from(feed)
        : value.operation.evaluate(
            value.inputs.map((operand) => results.get(operand)!),
            value,
          );
    results.set(value, { shape: value.shape, data });
  }
  return outputs.map((output) => results.get(output)!);
}
