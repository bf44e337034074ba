/** @file Training of a whole model, from scratch or further. */
import { Random } from "@espalier/core";
import {
  type EpochRecord,
  type Evaluation,
  evaluate,
  expectBatch,
  expectSmoothing,
} from "@espalier/train";
import type { RunContext } from "./run-context.ts";
import { FINAL_MODEL, type OpenRunOptions, RunDirectory } from "./run-directory.ts";
import { modelFiles } from "./save-model.ts";
import type { TuneSettings } from "./settings.ts";
import { freshNetwork, type LoadedSource, loadSource } from "./source.ts";
import { forTask, holdOut, trainInRun } from "./train-in-run.ts";

export interface TrainRequest extends OpenRunOptions {
  /** A ready-made network, such as "resnet20-cifar10", or, to train a model further, its SOURCE. */
  readonly source: string;
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

/**
 * Trains a fresh network, or a model further, in a run directory.
 *
 * @throws EspalierError as `loadSource` does, if `source` is neither.
 */
export async function trainModel(
  request: TrainRequest,
  context: RunContext,
): Promise<TrainModelResult> {
  const { source, settings, seed, batchSize } = request;
  const { executor, task, signal, onEvent } = context;
  const random = new Random(seed);
  const { model: start, path, sha256, hub } = await startOf(source, context, random);
  const model = forTask(start, task, random);
  const { training, validation } = holdOut(task.train(model), settings.validation, random);
  if (settings.epochs > 0) {
    expectSmoothing({ name: task.objective }, settings.labelSmoothing);
    expectBatch(training, settings.batchSize);
  }
  const run = await RunDirectory.open(
    request.directory,
    {
      command: "train",
      plugins: context.plugins,
      source,
      sha256,
      hub,
      data: task.spec,
      verified: task.verified,
      dataDigest: await task.digest(),
      executor: executor.name,
      settings,
      seed,
    },
    request,
    [path, task.directory].filter((input) => input !== undefined),
  );
  try {
    const history = await trainInRun(run, model, context, {
      ...settings,
      samples: training,
      validation,
      test: settings.testEpochs ? task.test(model) : undefined,
      distillation: undefined,
      random,
    });
    const trained = (await loadSource(run.file(FINAL_MODEL), context.families)).model;
    const judge = () =>
      evaluate(trained, task.test(trained), {
        executor,
        batchSize,
        measures: task.measures,
        classes: task.classesIn(trained),
        signal,
        onProgress: (done, total) =>
          onEvent?.({ type: "progress", stage: "evaluate", unit: "samples", done, total }),
      });
    const evaluation = await run.json("evaluation.json", judge, modelFiles(FINAL_MODEL));
    return { directory: run.path, history, evaluation };
  } finally {
    await run.close();
  }
}

/** Where training begins; a model that is fresh has no file and so no hash. */
async function startOf(
  source: string,
  { families, task, signal, onEvent }: RunContext,
  random: Random,
): Promise<Partial<LoadedSource> & Pick<LoadedSource, "model">> {
  const fresh = freshNetwork(source, families, random, task.classes);
  return fresh ? { model: fresh } : loadSource(source, families, { signal, onEvent });
}
