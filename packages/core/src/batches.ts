/** @file Programs over samples, one batch of fixed size after another. */
import { throwIfAborted } from "@espalier/base";
import { type Executor, float32Data, type ProgramSource } from "@espalier/graph";
import type { Random } from "./random.ts";
import { type Batch, orderByLength, type Samples } from "./samples.ts";

/** What `prepare` gives for 0, 1, … below `count`, each prepared while the one before is used. */
export async function* prefetch<T>(
  count: number,
  prepare: (i: number) => Promise<T>,
): AsyncGenerator<T> {
  let upcoming = count > 0 ? prepare(0) : undefined;
  for (let i = 0; i < count; i++) {
    const current = await upcoming!;
    upcoming = i + 1 < count ? prepare(i + 1) : undefined;
    // Where the loop ends early, nobody waits for it.
    upcoming?.catch(() => {});
    yield current;
  }
}

export interface BatchOptions {
  readonly samples: Samples;
  readonly batchSize: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Visits all samples in batches of one size, sequences in the order of their lengths. Only the first
 * `count` rows of a batch are samples of its own; the last batch is filled up by repetition.
 */
export async function forEachBatch(
  { samples: unordered, batchSize, signal }: BatchOptions,
  visit: (batch: Batch, start: number, count: number) => Promise<void>,
): Promise<void> {
  const samples = orderByLength(unordered);
  const size = Math.min(batchSize, samples.count);
  const countAt = (start: number) => Math.min(size, samples.count - start);
  const prepare = (batch: number) => {
    const start = batch * size;
    const count = countAt(start);
    return samples.batch(Array.from({ length: size }, (_, i) => start + (i < count ? i : 0)));
  };
  let start = 0;
  for await (const batch of prefetch(Math.ceil(samples.count / size), prepare)) {
    throwIfAborted(signal);
    await visit(batch, start, countAt(start));
    start += size;
  }
}

/** Adds what a program gave to the sum that is called `name`, in float64. */
export function addInto<Name>(
  sums: Map<Name, Float64Array>,
  name: Name,
  data: ArrayLike<number>,
): void {
  const sum = sums.get(name) ?? new Float64Array(data.length);
  sums.set(name, sum);
  for (let i = 0; i < data.length; i++) sum[i] += data[i];
}

export interface SumOptions extends BatchOptions {
  readonly executor: Executor;
  /** Augments the samples, as in training. */
  readonly augmentation?: Random | undefined;
}

/**
 * Adds up the outputs of one program, built for `batchSize` samples, over all batches, in float64.
 * Samples that do not fill a batch are left out.
 */
export async function sumOverBatches(
  source: ProgramSource,
  { samples, batchSize, signal, executor, augmentation }: SumOptions,
): Promise<{ readonly sums: ReadonlyMap<string, Float64Array>; readonly batches: number }> {
  const program = await executor.compile(source);
  const sums = new Map<string, Float64Array>();
  const batches = Math.floor(samples.count / batchSize);
  try {
    const prepare = (batch: number) => {
      const indices = Array.from({ length: batchSize }, (_, i) => batch * batchSize + i);
      return samples.batch(indices, augmentation?.stream("batch", batch));
    };
    for await (const { feeds } of prefetch(batches, prepare)) {
      throwIfAborted(signal);
      for (const [name, tensor] of Object.entries(await program.run(feeds))) {
        addInto(sums, name, float32Data(tensor));
      }
    }
  } finally {
    await program.dispose();
  }
  return { sums, batches };
}

/** Target distributions [labels, classes] that are certain of the first `count` labels; the rest are zero. */
export function oneHot(
  labels: ArrayLike<number>,
  classes: number,
  count: number = labels.length,
): Float32Array {
  const targets = new Float32Array(labels.length * classes);
  for (let n = 0; n < count; n++) targets[n * classes + labels[n]] = 1;
  return targets;
}
