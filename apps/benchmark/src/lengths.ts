/** @file What batches of like length gain, in the time of an epoch. */
import { type Model, Random, type Samples } from "@espalier/core";
import type { Executor } from "@espalier/graph";
import { encoders } from "@espalier/nlp";
import { defaultTextTuning, loadSource, openTask } from "@espalier/pipeline";
import {
  compileTrainingStep,
  type DeviceState,
  disposeState,
  narrowTokenTable,
  type TokenTable,
  type TrainingState,
  trainingOrder,
} from "@espalier/train";
import { secondsOf } from "./side-by-side.ts";

export interface LengthsOptions {
  /** A directory of Hugging Face's with an encoder. */
  readonly encoder: string;
  /** Such as "glue/sst2:DIR". */
  readonly tasks: readonly string[];
  readonly executor: Executor;
  /** Steps that are timed of each length. */
  readonly rounds: number;
  log(line: string): void;
}

export interface LengthsRow {
  readonly data: string;
  readonly batches: "random" | "of like length";
  /** Of an epoch, those that are filled up included. */
  readonly positions: number;
  /** Of the training steps of an epoch. */
  readonly seconds: number;
  /** Lengths that occur. */
  readonly programs: number;
}

const { batchSize, optimizer, clip } = defaultTextTuning;

/** The time of an epoch of each task with and without batches of like length. */
export async function measureLengths(options: LengthsOptions): Promise<LengthsRow[]> {
  const { encoder, tasks, log } = options;
  const { model: encoderAlone } = await loadSource(encoder, encoders);
  const random = new Random(0);
  const rows: LengthsRow[] = [];
  for (const spec of tasks) {
    log(`batches of ${spec}`);
    const task = await openTask(spec);
    const model = encoderAlone.family.withHead!(encoderAlone, task, random.stream("head"));
    const samples = task.train(model);
    const { count, lengths } = samples;
    const orders = {
      random: countBatches(trainingOrder({ count }, batchSize, random), lengths!),
      "of like length": countBatches(trainingOrder(samples, batchSize, random), lengths!),
    };
    const table = narrowTokenTable(model, samples, optimizer, undefined);
    const seconds = new Map<number, number>();
    for (const length of new Set(Object.values(orders).flatMap((each) => [...each.keys()]))) {
      seconds.set(length, await secondsOfStep(model, table, samples, length, options));
    }
    for (const [batches, counts] of Object.entries(orders)) {
      const sum = (of: (length: number) => number) =>
        [...counts].reduce((total, [length, times]) => total + times * of(length), 0);
      rows.push({
        data: task.name,
        batches: batches as LengthsRow["batches"],
        positions: sum((length) => length * batchSize),
        seconds: sum((length) => seconds.get(length)!),
        programs: counts.size,
      });
    }
  }
  return rows;
}

/** How many batches of an epoch have each length. */
function countBatches(order: Uint32Array, lengths: ArrayLike<number>): Map<number, number> {
  const counts = new Map<number, number>();
  for (let start = 0; start < order.length; start += batchSize) {
    const length = Math.max(...order.subarray(start, start + batchSize).map((i) => lengths[i]));
    counts.set(length, (counts.get(length) ?? 0) + 1);
  }
  return counts;
}

/** The time of a training step on a batch of `length` tokens. */
async function secondsOfStep(
  model: Model,
  table: TokenTable,
  samples: Samples,
  length: number,
  { executor, rounds }: LengthsOptions,
): Promise<number> {
  const step = await compileTrainingStep(table.model, executor, {
    ...{ batchSize, length, optimizer, clip, statisticsMomentum: 0 },
  });
  const lengths = Array.from(samples.lengths!);
  // A batch is as long as its longest sample.
  const longest = lengths.indexOf(length);
  const others = [...lengths.keys()].filter((i) => lengths[i] <= length);
  const batch = await samples.batch([longest, ...others.slice(0, batchSize - 1)]);
  const feeds = table.feeds(batch.feeds);
  const outputs = model.classes.length;
  const targets = new Float32Array(batchSize * outputs).fill(1 / outputs);
  const times: number[] = [];
  let state: TrainingState | DeviceState = step.initialState();
  for (let round = 0; round <= rounds; round++) {
    times.push(
      await secondsOf(async () => {
        const inputs = { feeds, targets, learningRate: 1e-5, step: round + 1 };
        const { state: next } = await step.run(state, inputs);
        disposeState(state);
        state = next;
      }),
    );
  }
  disposeState(state);
  await step.dispose();
  // The first run lays out memory.
  return Math.min(...times.slice(1));
}
