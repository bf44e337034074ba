/** @file Scores of components by an estimator. */
import {
  type ComponentGroup,
  type EstimateOptions,
  estimate,
  type Model,
  rowMeanSquares,
} from "@espalier/core";

/** The score of every component: of traces the relative ones, as pruning by them ranks. */
export async function estimatedScores(
  model: Model,
  groups: readonly ComponentGroup[],
  options: Omit<EstimateOptions, "rowFactors">,
): Promise<Float64Array> {
  const isTrace = options.quantity === "trace";
  const rowFactors = isTrace ? rowMeanSquares(model, groups) : undefined;
  return (await estimate(model, groups, { ...options, rowFactors })).mean;
}
