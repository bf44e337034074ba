/** @file What low-rank implants are fitted to: sums over samples that the graph of a model names. */
import { cost, type Executor, float32Data, input, multiply, reshape, sum } from "@espalier/graph";
import { addInto, type BatchOptions, forEachBatch } from "./batches.ts";
import { bindParameters } from "./bind.ts";
import { type ComponentGroup, type Decisions, selectRows } from "./components.ts";
import { fitBatch } from "./fit-batch.ts";
import type { Model, Observed } from "./model.ts";
import { PerLength } from "./per-length.ts";
import { longest } from "./samples.ts";

export interface ObserveOptions extends BatchOptions {
  readonly executor: Executor;
}

/**
 * The observations of `model` (see ModelGraph) for the weights of which some rows become implants by
 * `decisions`, added up over all samples; none where nothing of the kind is asked for.
 *
 * @throws EspalierError `out-of-memory` if not even one sample at a time keeps to the memory limit.
 */
export async function observeImplants(
  model: Model,
  groups: readonly ComponentGroup[],
  decisions: Decisions,
  { executor, samples, batchSize: wanted, signal }: ObserveOptions,
): Promise<Observed> {
  const graph = model.build(1, "evaluation");
  const { observations } = graph;
  const selected = selectRows(groups, decisions, graph);
  const weights = [...(observations?.keys() ?? [])].filter((weight) =>
    selected.get(weight)?.some(({ implant }) => implant),
  );
  if (weights.length === 0) return new Map();
  const prepare = (batchSize: number, length: number | undefined) => {
    const { graph, constants } = bindParameters(model, batchSize, "evaluation", length);
    const counted = input("counted", [batchSize]);
    const values = weights.flatMap((weight) => graph.observations?.get(weight) ?? []);
    const sums = values.map((value) => {
      const factor = reshape(
        counted,
        value.shape.map((_, axis) => (axis === 0 ? batchSize : 1)),
      );
      return sum(multiply(value, factor), [0]);
    });
    const outputs = Object.fromEntries(sums.map((value, i) => [String(i), value]));
    return { batchSize, constants, outputs, peakBytes: cost(sums).peakBytes };
  };
  const { batchSize } = fitBatch(executor, Math.min(wanted, samples.count), (size) =>
    prepare(size, longest(samples)),
  );
  const programs = new PerLength((length) => executor.compile(prepare(batchSize, length)));
  const totals = new Map<string, Float64Array>();
  try {
    await forEachBatch({ samples, batchSize, signal }, async (batch, _start, count) => {
      const program = await programs.for(batch);
      const counted = Float32Array.from({ length: batchSize }, (_, n) => (n < count ? 1 : 0));
      const results = await program.run({ ...batch.feeds, counted });
      for (const [i, result] of Object.entries(results)) addInto(totals, i, float32Data(result));
    });
  } finally {
    await programs.dispose();
  }
  let next = 0;
  return new Map(
    weights.map((weight) => [
      weight,
      observations!.get(weight)!.map(() => totals.get(`${next++}`)!),
    ]),
  );
}
