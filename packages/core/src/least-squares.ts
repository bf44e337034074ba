/** @file Linear least squares from sums over observations. */
import { solvePositive } from "./cholesky.ts";

/** Sums over n observations of regressors x (D numbers each) and errors e (K numbers each). */
export interface NormalSums {
  readonly observations: number;
  /** x xᵀ: [D, D]. */
  readonly xx: Float64Array;
  /** x eᵀ: [D, K]. */
  readonly xe: Float64Array;
  readonly x: Float64Array;
  readonly e: Float64Array;
}

export interface Correction {
  /** [K, D]. */
  readonly weight: Float64Array;
  /** [K]; zeros unless asked for. */
  readonly constant: Float64Array;
}

// By how much eigenvalues may be wrong that come of sums in float32, as a share of the sum of squares:
// half a unit in the last place, 6e-8, for those of squares and twice as much for the squares of sums,
// and what was lost in adding up.
const ROUNDING = 5e-7;

/**
 * The weight W and the constant c that minimise Σ ‖W x + c − e‖² + n λ ‖W‖², where λ is `ridge` times
 * the mean over regressors of their mean square (Hoerl and Kennard 1970), without their means if there
 * is a constant.
 *
 * @param ridge Above 0, so that linearly dependent regressors have one solution.
 * @param withConstant Otherwise c = 0.
 */
export function solveNormal(sums: NormalSums, ridge: number, withConstant: boolean): Correction {
  const { observations: n, xx, xe, x, e } = sums;
  const [regressors, rows] = [x.length, e.length];
  const means = x.map((sum) => (withConstant ? sum / n : 0));
  // The covariances, then those with the errors as rows.
  const system = new Float64Array((regressors + rows) * regressors);
  let [trace, squares] = [0, 0];
  for (let i = 0; i < regressors; i++) {
    // Half of it, since the sums of a matrix product are not symmetric to the last bit.
    for (let j = 0; j <= i; j++) {
      system[i * regressors + j] = xx[i * regressors + j] - means[i] * x[j];
    }
    for (let r = 0; r < rows; r++) {
      system[(regressors + r) * regressors + i] = xe[i * rows + r] - means[i] * e[r];
    }
    trace += system[i * regressors + i];
    squares += xx[i * regressors + i];
  }
  // Regressors that hardly vary leave rounding errors of float32 sums, of either sign, and get a weight
  // near zero; those that are zero everywhere get one of zero.
  const penalty = Math.max((ridge * trace) / regressors, ROUNDING * squares) || 1;
  for (let i = 0; i < regressors; i++) system[i * regressors + i] += penalty;
  const weight = solvePositive(system, regressors).slice();
  const constant = e.map((sum, r) => {
    if (!withConstant) return 0;
    let predicted = 0;
    for (let i = 0; i < regressors; i++) predicted += weight[r * regressors + i] * means[i];
    return sum / n - predicted;
  });
  return { weight, constant };
}

/** Sums over n observations of y, K numbers each, and of their squares. */
export interface TargetSums {
  readonly y: Float64Array;
  readonly yy: Float64Array;
}

/**
 * What each row w of a weight is to be multiplied with so that w x varies as much as y: √(Σ y² / Σ (w x)²),
 * of deviations from the means if there is a constant. 1 for rows that make nothing that varies.
 *
 * @param weight [K, D].
 */
export function gainsOf(
  weight: ArrayLike<number>,
  { observations: n, xx, x }: Pick<NormalSums, "observations" | "xx" | "x">,
  { y, yy }: TargetSums,
  withConstant: boolean,
): Float64Array {
  const regressors = x.length;
  return yy.map((squares, r) => {
    const wanted = withConstant ? squares - y[r] ** 2 / n : squares;
    let [made, mean] = [0, 0];
    for (let i = 0; i < regressors; i++) {
      const w = weight[r * regressors + i];
      let rest = 0;
      for (let j = 0; j < i; j++) rest += weight[r * regressors + j] * xx[i * regressors + j];
      made += w * (w * xx[i * regressors + i] + 2 * rest);
      mean += (w * x[i]) / n;
    }
    const varied = withConstant ? made - n * mean ** 2 : made;
    const varies = varied > ROUNDING * made && wanted > ROUNDING * squares;
    return varies ? Math.sqrt(wanted / varied) : 1;
  });
}
