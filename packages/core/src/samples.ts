/** @file Labelled samples, as models take them. */
import type { TensorData } from "@espalier/graph";
import type { Random } from "./random.ts";

export interface Batch {
  /** The model's inputs, by name. */
  readonly feeds: Readonly<Record<string, TensorData>>;
  /** Class of each sample. */
  readonly labels: ArrayLike<number>;
  /** Rows that repeat other samples, since their own could not be read. They are not judged. */
  readonly substitutes?: ReadonlySet<number> | undefined;
}

/** A set of labelled samples in a fixed order. */
export interface Samples {
  readonly count: number;
  /**
   * The samples `indices` (below `count`), in that order.
   *
   * @param augmentation If given, each sample is varied at random by it, as training wants.
   */
  batch(indices: ArrayLike<number>, augmentation?: Random): Promise<Batch>;
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
  return {
    count: positions.length,
    batch: (indices, augmentation) =>
      samples.batch(
        Array.from(indices, (index) => positions[index]),
        augmentation,
      ),
  };
}
