/** @file Statistics of normalisation layers, estimated anew after pruning. */
import {
  bindParameters,
  type Model,
  type Parameter,
  type Random,
  type Samples,
  sumOverBatches,
} from "@espalier/core";
import type { Executor } from "@espalier/graph";

export interface ReestimateOptions {
  readonly executor: Executor;
  /** Samples at a time: each layer is normalised with the statistics of one batch. */
  readonly batchSize: number;
  /**
   * Augments the samples, as in training. A network trained on augmented samples expects their
   * statistics, on other samples too: those of plain ones cost a ResNet-20 four points (decision 011).
   */
  readonly augmentation: Random | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * The model with the means and variances of its normalisation layers averaged over the batches of
 * `samples`, each normalised with its own statistics. Nothing is trained. Samples that do not fill
 * a batch are left out.
 */
export async function reestimateStatistics(
  model: Model,
  samples: Samples,
  { executor, batchSize, augmentation, signal }: ReestimateOptions,
): Promise<Model> {
  const size = Math.min(batchSize, samples.count);
  const { graph, constants } = bindParameters(model, size, "training");
  if (graph.statistics.size === 0) return model;
  const source = { outputs: Object.fromEntries(graph.statistics), constants };
  const options = { executor, samples, batchSize: size, augmentation, signal };
  const { sums, batches } = await sumOverBatches(source, options);
  const parameters = new Map<string, Parameter>(model.parameters);
  for (const [name, sum] of sums) {
    const data = Float32Array.from(sum, (value) => value / batches);
    parameters.set(name, { ...model.parameters.get(name)!, data });
  }
  return model.withParameters(parameters);
}
