/** @file In which order samples are trained on. */
import type { Random, Samples } from "@espalier/core";

/**
 * The samples of one epoch, one batch of `batchSize` after another, in random order. Samples that fill
 * no batch are left out, other ones in every epoch.
 *
 * Sequences are in a batch with others of like length, so that little is filled up; which batch comes
 * when is random again. Both depend on `random` alone.
 */
export function trainingOrder(
  { count, lengths }: Pick<Samples, "count" | "lengths">,
  batchSize: number,
  random: Random,
): Uint32Array {
  const batches = Math.floor(count / batchSize);
  const order = random.permutation(count).subarray(0, batches * batchSize);
  if (lengths === undefined) return order;
  // Sorting is stable: among equals the order stays random.
  order.sort((a, b) => lengths[a] - lengths[b]);
  const turns = random.stream("batches").permutation(batches);
  const shuffled = new Uint32Array(order.length);
  turns.forEach((turn, i) => {
    shuffled.set(order.subarray(turn * batchSize, (turn + 1) * batchSize), i * batchSize);
  });
  return shuffled;
}
