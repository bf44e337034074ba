/** @file How long models take, measured side by side. */
import { setTimeout } from "node:timers/promises";
import { throwIfAborted } from "@espalier/base";
import { sizeOf, type Tensor, type Value } from "@espalier/graph";
import { z } from "zod";

/** Something that can be run and timed. */
export interface Timed {
  run(): Promise<unknown>;
}

export interface Latency {
  /** Median of all runs, in milliseconds. */
  readonly median: number;
  /** First and third quartile. */
  readonly quartiles: readonly [number, number];
  readonly runs: number;
}

/**
 * Milliseconds with little disturbance by other programs, which only ever make runs slower: the first
 * quartile. Predictions and shares are of these.
 */
export function undisturbed({ quartiles }: Latency): number {
  return quartiles[0];
}

const milliseconds = z.number().positive();

export const latencySchema: z.ZodType<Latency> = z.strictObject({
  median: milliseconds,
  quartiles: z.tuple([milliseconds, milliseconds]),
  runs: z.int().min(1),
});

/** What times were measured on. */
export interface Machine {
  readonly processor: string;
  readonly threads: number;
  /** Name and version of what ran the models. */
  readonly runtime: string;
}

/** An ONNX model and the shapes and types of its inputs, by their names. */
export interface TimedModel {
  readonly onnx: Uint8Array;
  readonly inputs: Readonly<Record<string, Pick<Value, "shape" | "dtype">>>;
}

/** How ONNX models are timed. */
export interface Timing {
  readonly machine: Machine;
  /**
   * Times models in turn, as `measureLatencies` does, for about `seconds` in all.
   *
   * @throws EspalierError `aborted` after the run during which `signal` was given.
   */
  measure(
    models: readonly TimedModel[],
    seconds: number,
    signal?: AbortSignal,
  ): Promise<readonly Latency[]>;
}

/** What opens ONNX models. */
export type OpenModel = (onnx: Uint8Array) => Promise<{
  run(feeds: Readonly<Record<string, Tensor>>): Promise<Readonly<Record<string, Tensor>>>;
  dispose(): Promise<void>;
}>;

/** Times models by running them, opened by `open`, on `machine`. */
export function createTiming(machine: Machine, open: OpenModel): Timing {
  return {
    machine,
    measure: async (models, seconds, signal) => {
      const opened: Awaited<ReturnType<OpenModel>>[] = [];
      try {
        for (const { onnx } of models) {
          throwIfAborted(signal);
          opened.push(await open(onnx));
        }
        const candidates = models.map(({ inputs }, i) => {
          const feeds = Object.fromEntries(
            Object.entries(inputs).map(([name, input]) => [name, feedFor(input)]),
          );
          return { run: () => opened[i].run(feeds) };
        });
        return await measureLatencies(candidates, seconds, signal);
      } finally {
        for (const model of opened) await model.dispose();
      }
    },
  };
}

/** Noise, or zeros where an input is of numbers of tokens, whose times do not depend on them. */
function feedFor({ shape, dtype }: Pick<Value, "shape" | "dtype">): Tensor {
  const size = sizeOf(shape);
  return dtype === "int64"
    ? { dtype, shape, data: new BigInt64Array(size) }
    : { dtype: "float32", shape, data: noise(size) };
}

/**
 * `length` numbers from -1 to 1: what they are does not matter to how long computing with them takes,
 * unless they are zeros.
 */
export function noise(length: number, seed = 0): Float32Array {
  // Multiples of 2^32 over the golden ratio are spread evenly (Knuth, volume 3, section 6.4).
  const result = new Float32Array(length);
  for (let i = 0; i < length; i++) result[i] = (((i + seed) * 2654435761) % 1000) / 500 - 1;
  return result;
}

// Runtimes keep their threads spinning for a while after a run, which would slow whatever runs next.
const PAUSE_MILLISECONDS = 20;
// Short runs are timed more often, since the clock's and the scheduler's errors weigh more.
const RUNS_PER_TURN = 2;
const MILLISECONDS_PER_TURN = 5;
// Beside a run of a second nothing that precedes it weighs, and one is a turn.
const LONG_MILLISECONDS = 1000;

// One sample at a time, as in an application, and many, as in a service.
const MANY_SAMPLES = 64;
// What a few cores compute in a second or two.
const MACS_PER_BATCH = 1e11;

/**
 * How many samples at a time a model is timed on: 1, and 64 or the power of two that keeps a run short.
 * It depends on the model alone, so that times of several runs can be compared.
 *
 * @param macs The model's multiply-accumulates of a sample.
 */
export function timedBatches(macs: number): readonly [number, number] {
  const most = 2 ** Math.floor(Math.log2(MACS_PER_BATCH / macs));
  return [1, Math.min(MANY_SAMPLES, Math.max(2, most))];
}

/**
 * Times several candidates in turn, a few runs of each, so that a machine whose speed drifts is fair
 * to all. Before each turn comes a pause and, unless runs are long, a run that does not count.
 *
 * @param seconds How long to go on, in all; at least 3 turns of each.
 * @throws EspalierError `aborted` after the run during which `signal` was given.
 */
export async function measureLatencies(
  candidates: readonly Timed[],
  seconds: number,
  signal?: AbortSignal,
): Promise<Latency[]> {
  const runOnce = async (candidate: Timed) => {
    throwIfAborted(signal);
    const start = performance.now();
    await candidate.run();
    return performance.now() - start;
  };
  const times = candidates.map((): number[] => []);
  const end = performance.now() + seconds * 1000;
  for (let turn = 0; turn < 3 || performance.now() < end; turn++) {
    for (const [i, candidate] of candidates.entries()) {
      await setTimeout(PAUSE_MILLISECONDS);
      const known = times[i].at(-1) ?? (await runOnce(candidate));
      const isLong = known > LONG_MILLISECONDS;
      if (turn > 0 && !isLong) await runOnce(candidate);
      const runs = isLong ? 1 : RUNS_PER_TURN;
      const begin = performance.now();
      for (let run = 0; run < runs || withinTurn(begin); run++) {
        times[i].push(await runOnce(candidate));
      }
    }
  }
  return times.map((list) => {
    const sorted = list.sort((a, b) => a - b);
    const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))];
    return { median: at(0.5), quartiles: [at(0.25), at(0.75)], runs: sorted.length };
  });
}

function withinTurn(begin: number): boolean {
  return performance.now() - begin < MILLISECONDS_PER_TURN;
}
