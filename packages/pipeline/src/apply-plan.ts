/** @file A plan carried out: the smaller model, with what can be regained without training. */
import {
  applyDecisions,
  type ComponentGroup,
  compensate,
  type Decision,
  type Model,
  observeImplants,
  type PlanOptions,
  type Random,
  type Samples,
} from "@espalier/core";
import type { Executor } from "@espalier/graph";
import { reestimateStatistics } from "@espalier/train";
import type { OnPipelineEvent } from "./events.ts";
import type { PruneSettings } from "./settings.ts";

export interface ApplyPlanOptions {
  readonly executor: Executor;
  /** The samples that layers are fitted to; called only if something is to be fitted. */
  drawCalibration(): Samples;
  readonly random: Random;
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: OnPipelineEvent | undefined;
}

// Statistics are those of batches, which should be large.
const STATISTICS_BATCH = 256;

/**
 * `model` pruned as decided, with implants started and layers fitted as the settings say. Implants
 * that start by least squares are fitted with the layers where they are rows of a layer, and before it
 * where they are factors of products; as centre taps, the factors are of the weights alone. Where
 * layers were left as they are, or implants do not yet put out what they should, the statistics of
 * normalisation are estimated anew; after a fit those of the dense model are better (decision 016).
 */
export async function applyPlan(
  model: Model,
  groups: readonly ComponentGroup[],
  decisions: ReadonlyMap<string, readonly Decision[]>,
  {
    batchSize,
    calibration,
    compensation,
    implantStart,
    implantRank,
  }: Pick<PruneSettings, "batchSize" | "calibration" | "compensation" | "implantStart"> &
    Pick<PlanOptions, "implantRank">,
  { executor, drawCalibration, random, signal, onEvent }: ApplyPlanOptions,
): Promise<Model> {
  const whole = [...decisions.values()].flat().every((decision) => decision === "keep");
  // Nothing to make up for.
  if (whole) return applyDecisions(model, groups, decisions);
  const samples = calibration === 0 ? undefined : drawCalibration();
  const observed =
    samples && implantStart === "least-squares"
      ? await observeImplants(model, groups, decisions, { executor, samples, batchSize, signal })
      : undefined;
  const pruned = applyDecisions(model, groups, decisions, { implantRank, observed });
  const started = implantStart === "zero" ? zeroImplants(pruned) : pruned;
  if (samples === undefined) return started;
  const { implants } = started.build(1, "evaluation");
  const fitted = await compensate(model, started, samples, {
    executor,
    batchSize,
    signal,
    random: random.stream("compensation"),
    fits: (weight) => (implants.has(weight) ? implantStart : compensation) === "least-squares",
    onProgress: (done, total) =>
      onEvent?.({ type: "progress", stage: "apply", unit: "layers", done, total }),
  });
  const allFitted =
    compensation === "least-squares" && (implants.size === 0 || implantStart === "least-squares");
  if (allFitted) return fitted;
  return reestimateStatistics(fitted, samples, {
    executor,
    signal,
    batchSize: Math.min(STATISTICS_BATCH, samples.count),
    augmentation: random.stream("statistics"),
  });
}

function zeroImplants(model: Model): Model {
  const { implants } = model.build(1, "evaluation");
  const parameters = [...model.parameters].map(([name, parameter]) => {
    if (!implants.has(name)) return [name, parameter] as const;
    return [name, { ...parameter, data: new Float32Array(parameter.data.length) }] as const;
  });
  return model.withParameters(new Map(parameters));
}
