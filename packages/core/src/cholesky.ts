/** @file Symmetric linear systems of thousands of unknowns. */

// Columns at a time: of as many rows as are in use at once, they stay in the cache.
const BLOCK = 64;

/**
 * Solves A X = B for positive definite A by Cholesky decomposition, in place.
 *
 * The right-hand sides are rows below A, so that decomposing the whole substitutes them forward:
 * from [A; Bᵀ] it makes [L; Y] with A = L Lᵀ and Y Lᵀ = Bᵀ.
 *
 * @param rows [n + K, n]: the lower triangle of A [n, n], then Bᵀ [K, n]; overwritten. What is above
 *   the diagonal does not matter.
 * @param n Unknowns.
 * @returns Xᵀ [K, n]: the last rows; undefined where A is not positive definite.
 */
export function solvePositive(rows: Float64Array, n: number): Float64Array | undefined {
  const height = rows.length / n;
  for (let start = 0; start < n; start += BLOCK) {
    const end = Math.min(start + BLOCK, n);
    for (let i = start; i < height; i++) {
      for (let j = start; j < Math.min(i + 1, end); j++) {
        let left = rows[i * n + j];
        for (let k = start; k < j; k++) left -= rows[i * n + k] * rows[j * n + k];
        if (i === j && !(left > 0)) return undefined;
        rows[i * n + j] = i === j ? Math.sqrt(left) : left / rows[j * n + j];
      }
    }
    for (let j = end; j < n; j += 4) {
      for (let i = j; i < height; i += 2) subtractProducts(rows, n, i, j, start, end);
    }
  }
  for (let row = n; row < height; row += 4) substituteBackward(rows, n, row);
  return rows.subarray(n * n);
}

/** Of 2 rows from `i` and 4 columns from `j`: less the products of the columns from `start` to `end`. */
function subtractProducts(
  rows: Float64Array,
  n: number,
  i: number,
  j: number,
  start: number,
  end: number,
): void {
  const last = rows.length - n;
  const a = i * n;
  const b = Math.min(a + n, last);
  const p = j * n;
  const q = Math.min(p + n, last);
  const r = Math.min(p + 2 * n, last);
  const s = Math.min(p + 3 * n, last);
  // Sums in registers: several times as fast as one product after another.
  let ap = 0;
  let aq = 0;
  let ar = 0;
  let as = 0;
  let bp = 0;
  let bq = 0;
  let br = 0;
  let bs = 0;
  for (let k = start; k < end; k++) {
    const x = rows[a + k];
    const y = rows[b + k];
    ap += x * rows[p + k];
    aq += x * rows[q + k];
    ar += x * rows[r + k];
    as += x * rows[s + k];
    bp += y * rows[p + k];
    bq += y * rows[q + k];
    br += y * rows[r + k];
    bs += y * rows[s + k];
  }
  // At the edges there are fewer of either.
  const columns = n - j;
  rows[a + j] -= ap;
  if (columns > 1) rows[a + j + 1] -= aq;
  if (columns > 2) rows[a + j + 2] -= ar;
  if (columns > 3) rows[a + j + 3] -= as;
  if (b === a) return;
  rows[b + j] -= bp;
  if (columns > 1) rows[b + j + 1] -= bq;
  if (columns > 2) rows[b + j + 2] -= br;
  if (columns > 3) rows[b + j + 3] -= bs;
}

/** Y of up to 4 rows from `row` becomes X with X L = Y. */
function substituteBackward(rows: Float64Array, n: number, row: number): void {
  const [a, b, c, d] = [0, 1, 2, 3].map((r) => Math.min((row + r) * n, rows.length - n));
  // Rows past the last are the last once more, which must change once alone.
  const distinct = [...new Set([a, b, c, d])];
  for (let i = n - 1; i >= 0; i--) {
    const diagonal = i * n;
    for (const each of distinct) rows[each + i] /= rows[diagonal + i];
    if (distinct.length < 4) {
      for (const each of distinct) {
        for (let j = 0; j < i; j++) rows[each + j] -= rows[each + i] * rows[diagonal + j];
      }
      continue;
    }
    const [x, y, z, w] = [rows[a + i], rows[b + i], rows[c + i], rows[d + i]];
    for (let j = 0; j < i; j++) {
      const factor = rows[diagonal + j];
      rows[a + j] -= x * factor;
      rows[b + j] -= y * factor;
      rows[c + j] -= z * factor;
      rows[d + j] -= w * factor;
    }
  }
}
