/** @file Labelled samples, as models take them. */
import type { TensorData } from "@espalier/graph";
import type { Random } from "./random.ts";

export interface Batch {
  /** The model's inputs, by name. */
  readonly feeds: Readonly<Record<string, TensorData>>;
  /** Class of each sample, or the number to be predicted for it. */
  readonly labels: ArrayLike<number>;
  /** Of sequences: the positions that all samples are filled up to. */
  readonly length?: number | undefined;
  /** Rows that repeat other samples, since their own could not be read. They are not judged. */
  readonly substitutes?: ReadonlySet<number> | undefined;
}

/** A set of labelled samples in a fixed order. */
export interface Samples {
  readonly count: number;
  /**
   * Of sequences: how long the batch must be that each sample is in, one of few lengths, since a
   * program is compiled for each. A batch is as long as its longest sample asks for.
   */
  readonly lengths?: ArrayLike<number> | undefined;
  /**
   * The samples `indices` (below `count`), in that order.
   *
   * @param augmentation If given, each sample is varied at random by it, as training wants.
   */
  batch(indices: ArrayLike<number>, augmentation?: Random): Promise<Batch>;
  /**
   * Of texts: all tokens that batches of the samples `indices` can have, those that fill them up and
   * those of augmentation included, each once.
   */
  tokens?(indices: ArrayLike<number>): Uint32Array;
}

/** `count` different samples of `samples`, drawn by `random`, in ascending order. */
export function drawSamples(samples: Samples, count: number, random: Random): Samples {
  const chosen = random
    .permutation(samples.count)
    .subarray(0, Math.min(count, samples.count))
    .sort();
  return selectSamples(samples, chosen);
}

/** The samples at `positions` of `samples`, in that order. */
export function selectSamples(samples: Samples, positions: ArrayLike<number>): Samples {
  const { lengths } = samples;
  const at = (indices: ArrayLike<number>) => Uint32Array.from(indices, (index) => positions[index]);
  return {
    count: positions.length,
    lengths: lengths && Uint32Array.from(positions, (position) => lengths[position]),
    batch: (indices, augmentation) => samples.batch(at(indices), augmentation),
    ...(samples.tokens ? { tokens: (indices) => samples.tokens!(at(indices)) } : {}),
  };
}

/** `samples` with those that take up as much next to each other, so that little is filled up. */
export function orderByLength(samples: Samples): Samples {
  const { lengths, count } = samples;
  if (lengths === undefined) return samples;
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  return selectSamples(
    samples,
    order.sort((a, b) => lengths[a] - lengths[b] || a - b),
  );
}

/** The length of a batch of any of `samples`, undefined where they are no sequences. */
export function longest({ lengths }: Samples): number | undefined {
  return lengths && Array.from(lengths).reduce((a, b) => Math.max(a, b), 0);
}
