/** @file Linear least squares from sums over observations. */
import { EspalierError } from "@espalier/base";
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
// and what was lost in adding up few numbers.
const ROUNDING = 5e-7;

/**
 * The weight W and the constant c that minimise Σ ‖W x + c − e‖² + n λ ‖W‖², where λ is `ridge` times
 * the mean over regressors of their mean square (Hoerl and Kennard 1970), without their means if there
 * is a constant.
 *
 * @param ridge Above 0, so that linearly dependent regressors have one solution.
 * @param withConstant Otherwise c = 0.
 * @throws EspalierError `not-finite` for sums that are not.
 */
export function solveNormal(sums: NormalSums, ridge: number, withConstant: boolean): Correction {
  const { observations: n, xx, x, e } = sums;
  const regressors = x.length;
  const means = x.map((sum) => (withConstant ? sum / n : 0));
  let [trace, squares] = [0, 0];
  for (let i = 0; i < regressors; i++) {
    squares += xx[i * regressors + i];
    trace += xx[i * regressors + i] - means[i] * x[i];
  }
  // Regressors that hardly vary leave rounding errors of float32 sums, of either sign, and get a weight
  // near zero; those that are zero everywhere get one of zero.
  let penalty = Math.max((ridge * trace) / regressors, ROUNDING * squares);
  if (penalty === 0) penalty = 1;
  const solve = () => solvePositive(normalEquations(sums, means, penalty), regressors);
  let weight = solve();
  // How wrong sums in float32 are depends on who adds up, and in which order.
  while (weight === undefined && penalty < squares) {
    penalty *= 10;
    weight = solve();
  }
  if (weight === undefined) {
    throw new EspalierError(
      "not-finite",
      `least squares: expected sums over ${n} observations that are finite, got ${squares} for the squares of ${regressors} regressors`,
    );
  }
  const solution = weight.slice();
  const constant = e.map((sum, r) => {
    if (!withConstant) return 0;
    let predicted = 0;
    for (let i = 0; i < regressors; i++) predicted += solution[r * regressors + i] * means[i];
    return sum / n - predicted;
  });
  return { weight: solution, constant };
}

/** The covariances of regressors with `penalty` on the diagonal, then those with the errors as rows. */
function normalEquations(
  { xx, xe, x, e }: NormalSums,
  means: Float64Array,
  penalty: number,
): Float64Array {
  const [regressors, rows] = [x.length, e.length];
  const system = new Float64Array((regressors + rows) * regressors);
  for (let i = 0; i < regressors; i++) {
    // Half of it, since the sums of a matrix product are not symmetric to the last bit.
    for (let j = 0; j <= i; j++) {
      system[i * regressors + j] = xx[i * regressors + j] - means[i] * x[j];
    }
    system[i * regressors + i] += penalty;
    for (let r = 0; r < rows; r++) {
      system[(regressors + r) * regressors + i] = xe[i * rows + r] - means[i] * e[r];
    }
  }
  return system;
}

/** Sums over n observations of y, K numbers each, and of their squares. */
export interface TargetSums {
  readonly y: Float64Array;
  readonly yy: Float64Array;
}

/** Of what the rows of a weight make, over all observations, one number a row. */
export interface Spread {
  readonly means: Float64Array;
  /** Σ (w x)². */
  readonly squares: Float64Array;
  /** The same of deviations from the means. */
  readonly deviations: Float64Array;
}

/** @param weight [K, D]. */
export function spreadOf(
  weight: ArrayLike<number>,
  { observations, xx, x }: Pick<NormalSums, "observations" | "xx" | "x">,
): Spread {
  const regressors = x.length;
  const rows = weight.length / regressors;
  const [means, squares] = [new Float64Array(rows), new Float64Array(rows)];
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < regressors; i++) {
      const w = weight[r * regressors + i];
      let rest = 0;
      for (let j = 0; j < i; j++) rest += weight[r * regressors + j] * xx[i * regressors + j];
      squares[r] += w * (w * xx[i * regressors + i] + 2 * rest);
      means[r] += (w * x[i]) / observations;
    }
  }
  const deviations = squares.map((total, r) => Math.max(0, total - observations * means[r] ** 2));
  return { means, squares, deviations };
}

/**
 * What each row of a weight is to be multiplied with so that what it makes varies as much as y:
 * √(Σ (y − ȳ)² / Σ (w x − w x̄)²). 1 where one of them does not vary.
 */
export function gainsOf(
  { squares, deviations }: Spread,
  { y, yy }: TargetSums,
  observations: number,
): Float64Array {
  return yy.map((total, r) => {
    const wanted = total - y[r] ** 2 / observations;
    const varies = deviations[r] > ROUNDING * squares[r] && wanted > ROUNDING * total;
    return varies ? Math.sqrt(wanted / deviations[r]) : 1;
  });
}
