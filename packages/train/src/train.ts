/** @file The training loop: tunes a pruned model, or trains a fresh one. */
import { EspalierError, throwIfAborted } from "@espalier/base";
import {
  type Batch,
  bindParameters,
  type Model,
  type Objective,
  objectiveOf,
  PerLength,
  prefetch,
  type Random,
  type Samples,
} from "@espalier/core";
import type { Executor, Program, Value } from "@espalier/graph";
import { float32Data } from "@espalier/graph";
import { evaluate, Score } from "./evaluate.ts";
import type { OptimizerOptions } from "./optimizer.ts";
import { trainingOrder } from "./order.ts";
import { learningRateAt, peakOf, type Schedule } from "./schedule.ts";
import {
  compileTrainingStep,
  type DeviceState,
  type Distillation,
  disposeState,
  parametersIn,
  readState,
  type TeacherOutputs,
  type TrainingState,
} from "./step.ts";
import { narrowTokenTable } from "./token-table.ts";

export interface TrainOptions {
  readonly executor: Executor;
  readonly samples: Samples;
  /** Held-out samples, evaluated after every epoch. Never the test set. */
  readonly validation?: Samples | undefined;
  /**
   * The test set, judged after every epoch for those who compare with figures that were chosen by it.
   * Nothing follows from it here.
   */
  readonly test?: Samples | undefined;
  readonly epochs: number;
  readonly batchSize: number;
  readonly optimizer: OptimizerOptions;
  readonly schedule: Schedule;
  /** Share of each target spread evenly over all classes (arXiv 1512.00567, section 7). */
  readonly labelSmoothing: number;
  readonly distillation?: (Distillation & { readonly teacher: Model }) | undefined;
  /** What the norm of the gradient may be at most; default: anything. */
  readonly clip?: number | undefined;
  /** Orders and augments the samples. */
  readonly random: Random;
  /** Where to continue, as `onCheckpoint` was given it. */
  readonly resume?: TrainingCheckpoint | undefined;
  /**
   * Called after every epoch, within one every `checkpointInterval`, and with the last finished step
   * when interrupted.
   */
  readonly onCheckpoint?: ((checkpoint: TrainingCheckpoint) => Promise<void>) | undefined;
  /** Seconds of work that a process which is killed may lose at most; default: 600. */
  readonly checkpointInterval?: number | undefined;
  readonly onEvent?: ((event: TrainEvent) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** One line of the tuning curve. */
export interface EpochRecord {
  /** Counts from 1. */
  readonly epoch: number;
  readonly learningRate: number;
  /** Mean over the epoch's steps; with smoothed targets if so asked, and with augmentation. */
  readonly loss: number;
  /** Of regression the mean of the batches' correlations. */
  readonly trainAccuracy: number;
  readonly validationAccuracy?: number;
  readonly testAccuracy?: number;
}

export interface TrainingCheckpoint {
  /** Steps done since the beginning. */
  readonly step: number;
  readonly state: TrainingState;
  readonly history: readonly EpochRecord[];
  /** Sums over the unfinished epoch. */
  readonly partial: PartialEpoch;
}

/** Sums over the steps of an epoch. */
export interface PartialEpoch {
  readonly loss: number;
  /** Samples that were right; of regression each counts as its batch's correlation. */
  readonly correct: number;
  readonly count: number;
}

export type TrainEvent =
  | { readonly type: "epoch-start"; readonly epoch: number; readonly epochs: number }
  | {
      readonly type: "step-end";
      readonly step: number;
      readonly steps: number;
      readonly loss: number;
    }
  | ({ readonly type: "epoch-end"; readonly epochs: number } & EpochRecord);

export interface TrainResult {
  /** The model after the last epoch. */
  readonly model: Model;
  readonly history: readonly EpochRecord[];
}

/**
 * Trains `model`. Samples that do not fill a batch at the end of an epoch are left out of it.
 *
 * @throws EspalierError `invalid-argument` if there are fewer samples than a batch holds, for label
 *   smoothing of regression, for a checkpoint of more steps than these or of another model, and for
 *   tokens that the samples have not named; `aborted` after
 *   `onCheckpoint` was called; `not-finite` when the loss, an output, or what would be
 *   given to `onCheckpoint` or returned, is NaN or infinite.
 */
export async function train(model: Model, options: TrainOptions): Promise<TrainResult> {
  const { executor, samples, validation, test, epochs, batchSize, signal, onEvent } = options;
  const { checkpointInterval = 600 } = options;
  expectBatch(samples, batchSize);
  const stepsPerEpoch = Math.floor(samples.count / batchSize);
  const objective = objectiveOf(model);
  expectSmoothing(objective, options.labelSmoothing);
  const steps = epochs * stepsPerEpoch;
  const { resume } = options;
  if (resume !== undefined && resume.step > steps) {
    throw new EspalierError(
      "invalid-argument",
      `training: expected a checkpoint of at most ${steps} steps, got one of ${resume.step}`,
    );
  }
  const rateAt = (step: number) => learningRateAt(options.schedule, step, steps);
  const table = narrowTokenTable(
    model,
    samples,
    options.optimizer,
    resume && {
      state: resume.state,
      learningRates: Array.from({ length: resume.step }, (_, step) => rateAt(step)),
    },
  );
  const programs = new PerLength((length) =>
    compileTrainingStep(table.model, executor, { ...options, length, statisticsMomentum: 0.1 }),
  );
  const { distillation } = options;
  const teachers =
    distillation &&
    new PerLength((length) => compileTeacher(distillation, executor, batchSize, length));
  let state: TrainingState | DeviceState | undefined = resume && table.narrow(resume.state);
  const history = [...(resume?.history ?? [])];
  let partial: PartialEpoch = resume?.partial ?? { loss: 0, correct: 0, count: 0 };
  let done = resume?.step ?? 0;
  const diverged = (expected: string, step: number, got: number) =>
    new EspalierError(
      "not-finite",
      `training: expected ${expected} step ${step}, got ${got}; try a lower learning rate than ${peakOf(options.schedule, steps)}`,
      { step, got },
    );
  // A step's loss is that of the weights before it: only these say how the last one went.
  const reached = async () => {
    if (state === undefined) return undefined;
    const whole = table.widen(await readState(state));
    for (const name of model.parameters.keys()) {
      const wrong = whole.get(name)!.find((weight) => !Number.isFinite(weight));
      if (wrong !== undefined) throw diverged(`finite numbers in ${name} after`, done, wrong);
    }
    return whole;
  };
  let lastCheckpoint = performance.now();
  const checkpoint = async (whole: TrainingState | undefined) => {
    if (whole === undefined) return;
    await options.onCheckpoint?.({ step: done, state: whole, history: [...history], partial });
    lastCheckpoint = performance.now();
  };
  const modelOf = (whole: TrainingState | undefined) =>
    whole === undefined ? model : model.withParameters(parametersIn(model, whole));

  const prepare = (step: number): Promise<Batch> => {
    const epoch = Math.floor(step / stepsPerEpoch);
    const order = orderOf(epoch);
    const start = (step % stepsPerEpoch) * batchSize;
    const augmentation = options.random.stream("augment", step);
    return samples.batch(order.subarray(start, start + batchSize), augmentation);
  };
  let ordered: { epoch: number; order: Uint32Array } | undefined;
  const orderOf = (epoch: number): Uint32Array => {
    if (ordered?.epoch !== epoch) {
      const order = trainingOrder(samples, batchSize, options.random.stream("order", epoch));
      ordered = { epoch, order };
    }
    return ordered.order;
  };

  try {
    const first = done;
    for await (const batch of prefetch(steps - first, (i) => prepare(first + i))) {
      const epoch = Math.floor(done / stepsPerEpoch);
      if (done % stepsPerEpoch === 0) onEvent?.({ type: "epoch-start", epoch: epoch + 1, epochs });
      if (signal?.aborted) {
        await checkpoint(await reached());
        throwIfAborted(signal);
      }
      const learningRate = rateAt(done);
      const program = await programs.for(batch);
      const teacher = await teachers?.for(batch);
      const result = await program.run(state ?? program.initialState(), {
        feeds: table.feeds(batch.feeds),
        targets: smooth(
          objective.targets(batch.labels, model.classes.length),
          model.classes.length,
          options.labelSmoothing,
        ),
        teacher: await teacher?.outputs(batch),
        learningRate,
        step: done + 1,
      });
      if (state !== undefined) disposeState(state);
      state = result.state;
      table.advance(learningRate);
      if (!Number.isFinite(result.loss)) throw diverged("a finite loss at", done + 1, result.loss);
      done++;
      const score = new Score(model);
      score.add(result.logits, { labels: batch.labels }, batchSize);
      partial = {
        loss: partial.loss + result.loss,
        correct: partial.correct + score.result().accuracy * batchSize,
        count: partial.count + batchSize,
      };
      onEvent?.({ type: "step-end", step: done, steps, loss: result.loss });
      if (done % stepsPerEpoch !== 0) {
        const seconds = (performance.now() - lastCheckpoint) / 1000;
        if (seconds >= checkpointInterval) await checkpoint(await reached());
        continue;
      }

      const whole = await reached();
      const judged = modelOf(whole);
      const accuracyOn = async (held: Samples) =>
        (await evaluate(judged, held, { executor, batchSize })).accuracy;
      const record: EpochRecord = {
        epoch: epoch + 1,
        learningRate,
        loss: partial.loss / stepsPerEpoch,
        trainAccuracy: partial.correct / partial.count,
        ...(validation ? { validationAccuracy: await accuracyOn(validation) } : {}),
        ...(test ? { testAccuracy: await accuracyOn(test) } : {}),
      };
      history.push(record);
      partial = { loss: 0, correct: 0, count: 0 };
      await checkpoint(whole);
      onEvent?.({ type: "epoch-end", epochs, ...record });
      if (done === steps) return { model: judged, history };
    }
    // Nothing was left to do.
    return { model: modelOf(await reached()), history };
  } finally {
    if (state !== undefined) disposeState(state);
    await programs.dispose();
    await teachers?.dispose();
  }
}

/** @throws EspalierError `invalid-argument` if there are fewer samples than a step takes. */
export function expectBatch({ count }: Pick<Samples, "count">, batchSize: number): void {
  if (count >= batchSize) return;
  throw new EspalierError(
    "invalid-argument",
    `training: expected at least one batch of ${batchSize} samples, got ${count} samples`,
  );
}

/** @throws EspalierError `invalid-argument`: numbers that are to be predicted are not spread over classes. */
export function expectSmoothing({ name }: Pick<Objective, "name">, smoothing: number): void {
  if (smoothing === 0 || name !== "regression") return;
  throw new EspalierError(
    "invalid-argument",
    `label-smoothing: expected 0 where a number is to be predicted, got ${smoothing}`,
  );
}

function smooth(targets: Float32Array, classes: number, smoothing: number): Float32Array {
  if (smoothing === 0) return targets;
  return targets.map((target) => target * (1 - smoothing) + smoothing / classes);
}

interface Teacher {
  outputs(batch: Batch): Promise<TeacherOutputs>;
  dispose(): Promise<void>;
}

async function compileTeacher(
  { teacher, hiddenWeight }: NonNullable<TrainOptions["distillation"]>,
  executor: Executor,
  batchSize: number,
  length: number | undefined,
): Promise<Teacher> {
  const { graph, constants } = bindParameters(teacher, batchSize, "evaluation", length);
  const layers = hiddenWeight > 0 ? (graph.hidden ?? []) : [];
  const outputs: Record<string, Value> = { logits: graph.logits };
  layers.forEach((value, i) => {
    outputs[`hidden.${i}`] = value;
  });
  const program: Program = await executor.compile({ outputs, constants });
  return {
    outputs: async (batch) => {
      const results = await program.run(batch.feeds);
      return {
        logits: float32Data(results.logits),
        hidden: layers.map((_, i) => float32Data(results[`hidden.${i}`])),
      };
    },
    dispose: () => program.dispose(),
  };
}
