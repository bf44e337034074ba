/** @file Normalisation by stored statistics, written so that these are what there is. */
import type { Spread } from "./least-squares.ts";

/** Parameters of a normalisation, one number a channel; changed in place. */
export interface NormalizationData {
  readonly mean: Float32Array;
  readonly variance: Float32Array;
  readonly scale: Float32Array;
  readonly bias: Float32Array;
  readonly epsilon: number;
}

/**
 * Makes stored statistics those of what the rows of a weight make, without changing what comes of it:
 * the rows are multiplied to vary about as the stored variances say, which scales make up for, and biases take
 * what means were off by. So it makes no difference whether a batch is normalised by itself, as in
 * training, or by what is stored.
 *
 * @param rows [K, D]; those of the channels from `first` on. Changed in place.
 */
export function restate(
  rows: Float32Array,
  { means, deviations }: Spread,
  observations: number,
  { mean, variance, scale, bias, epsilon }: NormalizationData,
  first: number,
): void {
  const regressors = rows.length / means.length;
  means.forEach((made, r) => {
    const c = first + r;
    const stored = Math.sqrt(variance[c] + epsilon);
    const spread = deviations[r] / observations;
    const factor = stored / Math.sqrt(spread + epsilon);
    bias[c] += (scale[c] * (made - mean[c])) / stored;
    mean[c] = factor * made;
    variance[c] = factor ** 2 * spread;
    scale[c] *= Math.sqrt(variance[c] + epsilon) / (stored * factor);
    for (let i = r * regressors; i < (r + 1) * regressors; i++) rows[i] *= factor;
  });
}
