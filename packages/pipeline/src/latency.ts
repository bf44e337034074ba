/** @file How long models take, measured side by side. */
import { setTimeout } from "node:timers/promises";
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
  /** Times models in turn, as `measureLatencies` does, for about `seconds` in all. */
  measure(models: readonly TimedModel[], seconds: number): Promise<readonly Latency[]>;
}

/** What opens ONNX models. */
export type OpenModel = (onnx: Uint8Array) => Promise<{
  run(feeds: Readonly<Record<string, Tensor>>): Promise<unknown>;
  dispose(): Promise<void>;
}>;

/** Times models by running them, opened by `open`, on `machine`. */
export function createTiming(machine: Machine, open: OpenModel): Timing {
  return {
    machine,
    measure: async (models, seconds) => {
      const opened: Awaited<ReturnType<OpenModel>>[] = [];
      try {
        for (const { onnx } of models) opened.push(await open(onnx));
        const candidates = models.map(({ inputs }, i) => {
          const feeds = Object.fromEntries(
            Object.entries(inputs).map(([name, input]) => [name, feedFor(input)]),
          );
          return { run: () => opened[i].run(feeds) };
        });
        return await measureLatencies(candidates, seconds);
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

/**
 * Times several candidates in turn, a few runs of each, so that a machine whose speed drifts is fair
 * to all. Before each turn comes a pause and a run that does not count.
 *
 * @param seconds How long to go on, in all; at least 3 turns of each.
 */
export async function measureLatencies(
  candidates: readonly Timed[],
  seconds: number,
): Promise<Latency[]> {
  const times = candidates.map((): number[] => []);
  const end = performance.now() + seconds * 1000;
  for (let turn = 0; turn < 3 || performance.now() < end; turn++) {
    for (const [i, candidate] of candidates.entries()) {
      await setTimeout(PAUSE_MILLISECONDS);
      await candidate.run();
      const begin = performance.now();
      for (let run = 0; run < RUNS_PER_TURN || withinTurn(begin); run++) {
        const start = performance.now();
        await candidate.run();
        times[i].push(performance.now() - start);
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
