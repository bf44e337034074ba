/** @file Batches that fit into memory. */
import { type Executor, expectMemory } from "@espalier/graph";

/** Programs for batches of one size, not compiled yet. */
export interface Prepared {
  readonly batchSize: number;
  /** What the programs need at once, as `cost` predicts it. */
  readonly peakBytes: number;
}

/**
 * What `prepare` makes for a batch of `wanted` samples, or for fewer where that would exceed the
 * executor's memory limit.
 *
 * @throws EspalierError `out-of-memory` if not even one sample at a time keeps to it.
 */
export function fitBatch<T extends Prepared>(
  { memoryLimit = Number.POSITIVE_INFINITY }: Pick<Executor, "memoryLimit">,
  wanted: number,
  prepare: (batchSize: number) => T,
): T {
  let prepared = prepare(wanted);
  while (prepared.peakBytes > memoryLimit && prepared.batchSize > 1) {
    // What a batch needs besides its samples is the same for all, so this is too many at first.
    const guess = Math.floor((prepared.batchSize * memoryLimit) / prepared.peakBytes);
    prepared = prepare(Math.max(1, Math.min(guess, prepared.batchSize - 1)));
  }
  expectMemory(memoryLimit, prepared.peakBytes);
  return prepared;
}
