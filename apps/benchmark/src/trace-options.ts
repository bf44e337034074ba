/** @file What the benchmarks of exact traces have in common. */
import { type EstimateOptions, Random } from "@espalier/core";

/** Exact traces of every channel, 64 samples at a time. */
export function traceOptions({
  executor,
  samples,
}: Pick<EstimateOptions, "executor" | "samples">): EstimateOptions {
  return {
    executor,
    samples,
    quantity: "trace",
    estimator: "exact",
    draws: 1,
    temperature: 1,
    batchSize: 64,
    random: new Random(0),
  };
}
