/** @file A model from scratch. */
import { EspalierError } from "@espalier/base";
import { type Model, type ModelFamily, Random } from "@espalier/core";
import { type EpochRecord, type Evaluation, evaluate } from "@espalier/train";
import type { RunContext } from "./prune.ts";
import { FINAL_MODEL, type OpenRunOptions, RunDirectory } from "./run-directory.ts";
import type { TuneSettings } from "./settings.ts";
import { loadSource } from "./source.ts";
import { holdOut, trainInRun } from "./train-in-run.ts";

export interface TrainRequest extends OpenRunOptions {
  /** A ready-made network, such as "resnet20-cifar10". */
  readonly preset: string;
  readonly settings: TuneSettings;
  readonly seed: number;
  readonly batchSize: number;
  readonly directory: string;
}

export interface TrainModelResult {
  readonly directory: string;
  readonly history: readonly EpochRecord[];
  /** On the whole test set, after the last epoch. */
  readonly evaluation: Evaluation;
}

/** Trains a fresh network in a run directory. */
export async function trainModel(
  request: TrainRequest,
  context: RunContext,
): Promise<TrainModelResult> {
  const { preset, settings, seed, batchSize } = request;
  const { executor, task, signal, onEvent } = context;
  const random = new Random(seed);
  const model = freshModel(preset, context.families, random);
  const run = await RunDirectory.open(
    request.directory,
    {
      command: "train",
      preset,
      data: task.spec,
      verified: task.verified,
      executor: executor.name,
      settings,
      seed,
    },
    request,
  );
  const { training, validation } = holdOut(
    task.train(model.preprocessing),
    settings.validation,
    random,
  );
  const history = await trainInRun(run, model, context, {
    ...settings,
    samples: training,
    validation,
    distillation: undefined,
    random,
  });
  const trained = (await loadSource(run.file(FINAL_MODEL), context.families)).model;
  const evaluation = await run.json("evaluation.json", () =>
    evaluate(trained, task.test(trained.preprocessing), {
      executor,
      batchSize,
      signal,
      onProgress: (done, total) =>
        onEvent?.({ type: "progress", stage: "evaluate", unit: "images", done, total }),
    }),
  );
  return { directory: run.path, history, evaluation };
}

function freshModel(preset: string, families: readonly ModelFamily[], random: Random): Model {
  const family = families.find(({ presets }) => preset in presets);
  if (family === undefined) {
    const known = families.flatMap(({ presets }) => Object.keys(presets));
    throw new EspalierError(
      "invalid-argument",
      `network ${preset}: expected one of ${known.join(", ")}`,
      { preset, known },
    );
  }
  return family.initialize(family.presets[preset], random);
}
