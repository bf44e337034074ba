/** @file Statistics of many quantities at once, that can be gathered in parts and merged. */

/**
 * Count, sums and sums of squares of a vector of quantities, in float64. Two that were gathered over
 * different samples, or with different probes, merge into what one run over both would have given.
 */
export class Moments {
  readonly size: number;
  count = 0;
  readonly sums: Float64Array;
  readonly squares: Float64Array;

  constructor(size: number) {
    this.size = size;
    this.sums = new Float64Array(size);
    this.squares = new Float64Array(size);
  }

  /** One observation of all quantities. */
  add(values: ArrayLike<number>): void {
    for (let i = 0; i < this.size; i++) {
      this.sums[i] += values[i];
      this.squares[i] += values[i] * values[i];
    }
    this.count++;
  }

  merge(other: Moments): void {
    this.count += other.count;
    for (let i = 0; i < this.size; i++) {
      this.sums[i] += other.sums[i];
      this.squares[i] += other.squares[i];
    }
  }

  mean(): Float64Array {
    return this.sums.map((sum) => sum / this.count);
  }

  /**
   * Standard errors of the means, from the unbiased variance of the observations; NaN for fewer
   * than two of them.
   */
  standardError(): Float64Array {
    return this.sums.map((sum, i) => {
      const mean = sum / this.count;
      const variance = (this.squares[i] - sum * mean) / (this.count - 1);
      return Math.sqrt(Math.max(0, variance) / this.count);
    });
  }
}
