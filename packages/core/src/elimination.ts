/** @file What channels cost one after another, where what reads them is fitted to those that are left. */
import { EspalierError } from "@espalier/base";
import { solvePositive } from "./cholesky.ts";

/** Of m channels that one weight reads. */
export interface ChannelMoments {
  /** Mean products of a one and the channels, over samples and positions: [1 + m, 1 + m]. */
  readonly activations: Float64Array;
  /** Mean over samples of the products of the loss's gradients, added up over positions: [m, m]. */
  readonly gradients: Float64Array;
}

// As of the fits themselves (decision 016), relative to the mean variance of a channel.
const RIDGE = 1e-3;

/**
 * What it costs to remove channels, the cheapest first, each as the next after those that cost less:
 * costs of a set of the cheapest add up to what removing all of them costs, or to more where a channel
 * is cheap only once others are gone.
 *
 * Without the channels of a set, what reads them is fitted to the others and a constant: a channel a_c
 * becomes its prediction Σ β_d a_d, and the loss grows by ½ G_cc times the variance of what is not
 * predicted, which is 1 / (A⁻¹)_cc, where A are the mean products of what is left and G those of
 * gradients (Optimal Brain Surgeon, Hassibi and Stork 1993, with the Kronecker factors of Martens and
 * Grosse 2015, arXiv 1503.05671, for blocks). Then d stands for c, too, with β_d of it, so that
 * G_de grows by β_d G_ce + β_e G_dc + β_d β_e G_cc.
 *
 * @param removal What removing each channel alone costs with nothing fitted. That is more exact than the
 *   factors, which take gradients to have nothing to do with activations: they are scaled to agree.
 * @returns [m], none less than zero.
 * @throws EspalierError `not-finite` for products that are not.
 */
export function eliminationCosts(
  { activations, gradients }: ChannelMoments,
  removal: ArrayLike<number>,
): Float64Array {
  const channels = removal.length;
  const n = channels + 1;
  const inverse = invert(activations, n);
  const scale = Float64Array.from(removal, (score, c) => {
    const factored = (gradients[c * channels + c] * activations[(c + 1) * n + c + 1]) / 2;
    return factored > 0 ? Math.sqrt(Math.max(0, score) / factored) : 0;
  });
  // Of both matrices the lower triangle. The first row is that of the constant, which is never removed.
  const curvature = new Float64Array(n * n);
  for (let c = 0; c < channels; c++) {
    for (let d = 0; d <= c; d++) {
      curvature[(c + 1) * n + d + 1] = gradients[c * channels + d] * scale[c] * scale[d];
    }
  }
  const at = (i: number, j: number) => (i > j ? i * n + j : j * n + i);
  const costs = new Float64Array(channels);
  let left = Array.from({ length: n }, (_, i) => i);
  let highest = 0;
  while (left.length > 1) {
    const costOf = (i: number) => curvature[i * n + i] / inverse[i * n + i] / 2;
    const next = left.slice(1).reduce((best, i) => (costOf(i) < costOf(best) ? i : best));
    // What was cheap only after others were gone costs no less than these.
    highest = Math.max(highest, costOf(next));
    costs[next - 1] = highest;
    left = left.filter((i) => i !== next);
    const own = curvature[next * n + next];
    const precision = inverse[next * n + next];
    const products = Float64Array.from(left, (j) => curvature[at(next, j)]);
    const column = Float64Array.from(left, (j) => inverse[at(next, j)]);
    const predictors = column.map((value) => -value / precision);
    for (let p = 0; p < left.length; p++) {
      const row = left[p] * n;
      const slope = products[p] + predictors[p] * own;
      for (let q = 0; q <= p; q++) {
        const k = row + left[q];
        curvature[k] += predictors[p] * products[q] + predictors[q] * slope;
        inverse[k] += column[p] * predictors[q];
      }
    }
  }
  return costs;
}

/** The inverse of mean products [n, n], of which the first is a constant's, with a ridge on the others. */
function invert(products: Float64Array, n: number): Float64Array {
  let variance = 0;
  for (let i = 1; i < n; i++) variance += products[i * n + i] - products[i * n] ** 2;
  let penalty = (RIDGE * variance) / (n - 1);
  if (!(penalty > 0)) penalty = 1;
  for (; Number.isFinite(penalty); penalty *= 10) {
    const system = new Float64Array(2 * n * n);
    system.set(products);
    for (let i = 0; i < n; i++) {
      if (i > 0) system[i * n + i] += penalty;
      system[(n + i) * n + i] = 1;
    }
    const inverse = solvePositive(system, n);
    // Sums of float32 are not positive definite to the last bit.
    if (inverse !== undefined) return inverse;
  }
  throw new EspalierError(
    "not-finite",
    `channel moments: expected products of ${n - 1} channels that are finite`,
  );
}
