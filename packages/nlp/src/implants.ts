/** @file Attention heads of a lower rank in place of whole ones. */
import { EspalierError } from "@espalier/base";
import { CholeskyDecomposition, Matrix, SingularValueDecomposition } from "ml-matrix";

/** The rows of a linear layer that belong to one head. */
export interface HeadRows {
  /** [rows, width]. */
  readonly weight: Matrix;
  /** [rows, 1]. */
  readonly bias: Matrix;
}

/** One head, whole or an implant. */
export interface Head {
  readonly query: HeadRows;
  readonly key: HeadRows;
  readonly value: HeadRows;
  /** Its columns of the output weight: [width, rows]. */
  readonly output: Matrix;
}

export interface Implant extends Head {
  /** What is to be added to the bias of the output layer: [width, 1]. */
  readonly constant: Matrix;
}

/** Sums over positions, for one head, from which second moments follow. */
export interface HeadObservations {
  /** Of queries, and of keys less their mean over the sample: [rows, rows]. */
  readonly queries: Matrix;
  readonly keys: Matrix;
  /** Of contexts, the weighted values, with a one after them: [rows + 1, rows + 1]. */
  readonly contexts: Matrix;
}

/**
 * A head of rank `rank` in place of `head`. Its scores and what it adds to the output are each as
 * close as can be, in the mean square, to those of the head; at the head's own rank they are the same.
 * Without observations that is so for inputs that are white and contexts whose mean is the bias of the
 * values.
 *
 * Constants lose nothing. What the bias or the mean of the keys adds to scores is alike for all
 * positions that a query attends to, and softmax does not change by it: keys count less their mean.
 * What the contexts' mean adds to the output is constant: `constant` is what the implant misses of it.
 */
export function makeImplant(head: Head, rank: number, observed?: HeadObservations): Implant {
  const { query, key, value, output } = head;
  const scores = truncateProduct(
    observed?.queries ?? squares(query.weight).add(squares(query.bias)),
    observed?.keys ?? squares(key.weight),
    rank,
  );
  const { mean, covariance } = observed
    ? centred(observed.contexts)
    : { mean: value.bias, covariance: squares(value.weight) };
  const results = truncateProduct(squares(output.transpose()), covariance, rank);
  const narrowed = output.mmul(results.left);
  return {
    query: project(query, scores.left),
    key: project(key, scores.right),
    value: project(value, results.right),
    output: narrowed,
    constant: Matrix.sub(output.mmul(mean), narrowed.mmul(results.right.transpose().mmul(mean))),
  };
}

/** w wᵀ. */
function squares(w: Matrix): Matrix {
  return w.mmul(w.transpose());
}

/** The layer that makes pᵀy of what `rows` makes as y. */
function project({ weight, bias }: HeadRows, p: Matrix): HeadRows {
  const transposed = p.transpose();
  return { weight: transposed.mmul(weight), bias: transposed.mmul(bias) };
}

// Of the sum of squares: what products in float32 are exact to, so that nothing is singular.
const ROUNDING = 5e-7;

/** `moments` with as much more on the diagonal as `total`, the sum of squares, is exact to. */
function withRounding(moments: Matrix, total = moments.trace()): Matrix {
  return Matrix.add(moments, Matrix.eye(moments.rows).mul(ROUNDING * total));
}

/**
 * Mean and covariance from sums of products with a one after each vector. Where the mean is large, the
 * covariance is a small difference of large numbers, as exact as these are.
 */
function centred(sums: Matrix): { mean: Matrix; covariance: Matrix } {
  const last = sums.rows - 1;
  const count = Math.max(1, sums.get(last, last));
  const mean = sums.subMatrix(0, last - 1, last, last).div(count);
  const moments = sums.subMatrix(0, last - 1, 0, last - 1).div(count);
  const total = moments.trace();
  return { mean, covariance: withRounding(moments.sub(squares(mean)), total) };
}

/**
 * The product xᵀy of vectors through `rank` numbers of each: P and R for which (Pᵀx)ᵀ(Rᵀy) is as close
 * to it as can be in the mean square, x and y being independent. That least of
 * tr(A (I − PRᵀ) B (I − PRᵀ)ᵀ), with second moments A = LLᵀ of x and B = MMᵀ of y, comes from the
 * singular value decomposition LᵀM = UΣVᵀ (Eckart and Young 1936). With all singular values PRᵀ = I.
 *
 * @param left A, of any scale: [rows, rows].
 * @param right B.
 */
export function truncateProduct(
  left: Matrix,
  right: Matrix,
  rank: number,
): { readonly left: Matrix; readonly right: Matrix } {
  const [l, m] = [factor(left), factor(right)];
  const decomposed = new SingularValueDecomposition(l.transpose().mmul(m));
  const { leftSingularVectors: u, rightSingularVectors: v, diagonal } = decomposed;
  const first = (root: Matrix, vectors: Matrix) =>
    root
      .mmul(vectors.subMatrix(0, root.rows - 1, 0, rank - 1))
      .divRowVector(diagonal.slice(0, rank).map(Math.sqrt));
  // L⁻ᵀU is MVΣ⁻¹: nothing but singular values is inverted, half of each on either side.
  return { left: first(m, v), right: first(l, u) };
}

/** L of LLᵀ for `moments` with a little more on the diagonal; of zeros, those of the identity. */
function factor(moments: Matrix): Matrix {
  // Sums of a matrix product are not symmetric to the last bit.
  const symmetric = Matrix.add(moments, moments.transpose()).div(2);
  const total = moments.trace();
  const decomposition = new CholeskyDecomposition(
    total === 0 ? Matrix.eye(moments.rows) : withRounding(symmetric),
  );
  if (decomposition.isPositiveDefinite()) return decomposition.lowerTriangularMatrix;
  throw new EspalierError(
    "not-finite",
    `implants: expected second moments of ${moments.rows} numbers that are finite and positive definite, got a trace of ${total}`,
  );
}
