import { expect, test } from "vitest";
import { spreadOf } from "./least-squares.ts";
import { restate } from "./normalization.ts";
import { Random } from "./random.ts";

const [observations, regressors, rows, first] = [50, 3, 2, 1];
const epsilon = 1e-5;

/** @param spread Of the weight: 1 makes variances of about 1. */
function problem(spread = 1) {
  const random = new Random(0);
  const seen = Array.from({ length: observations }, () =>
    Array.from({ length: regressors }, () => 1 + random.normal()),
  );
  const xx = new Float64Array(regressors ** 2);
  const x = new Float64Array(regressors);
  for (const each of seen) {
    each.forEach((a, i) => {
      x[i] += a;
      each.forEach((b, j) => {
        xx[i * regressors + j] += a * b;
      });
    });
  }
  const drawn = (n: number, mean: number, spread: number) =>
    Float32Array.from({ length: n }, () => mean + spread * (random.uniform() - 0.5));
  return {
    seen,
    sums: { observations, xx, x },
    weight: drawn(rows * regressors, 0, 2 * spread),
    normalization: {
      mean: drawn(first + rows, 0, 1),
      variance: drawn(first + rows, 2, 1).map((x) => x * spread ** 2),
      scale: drawn(first + rows, 1, 1),
      bias: drawn(first + rows, 0, 1),
      epsilon,
    },
  };
}

type Problem = ReturnType<typeof problem>;

/** What row `r` makes of every observation, and that normalised. */
function outputsOf({ seen, weight, normalization }: Problem, r: number) {
  const { mean, variance, scale, bias } = normalization;
  const c = first + r;
  const made = seen.map((x) => x.reduce((sum, a, i) => sum + a * weight[r * regressors + i], 0));
  const factor = scale[c] / Math.sqrt(variance[c] + epsilon);
  return { made, normalized: made.map((y) => (y - mean[c]) * factor + bias[c]) };
}

// Where variances are as small as what is added to them, too.
test.each([1, 3e-3, 1e-5])(
  "what comes of it stays the same, and statistics are those of what is made: %f",
  (size) => {
    const before = problem(size);
    const after = problem(size);
    const spread = spreadOf(after.weight, after.sums);
    restate(after.weight, spread, observations, after.normalization, first);
    for (let r = 0; r < rows; r++) {
      const { normalized } = outputsOf(before, r);
      const { made, normalized: now } = outputsOf(after, r);
      now.forEach((y, i) => {
        expect(y).toBeCloseTo(normalized[i], 5);
      });
      const mean = made.reduce((a, b) => a + b) / observations;
      const variance = made.reduce((sum, y) => sum + (y - mean) ** 2, 0) / observations;
      const { normalization } = after;
      expect(mean).toBeCloseTo(normalization.mean[first + r], 5);
      expect(variance / normalization.variance[first + r]).toBeCloseTo(1, 4);
    }
    for (const name of ["mean", "variance", "scale", "bias"] as const) {
      expect(after.normalization[name][0]).toBe(before.normalization[name][0]);
    }
  },
);

test("a row that makes nothing stays nothing", () => {
  const { weight, sums, normalization } = problem();
  weight.fill(0, 0, regressors);
  restate(weight, spreadOf(weight, sums), observations, normalization, first);
  expect([...weight.subarray(0, regressors)]).toEqual([0, 0, 0]);
  expect([normalization.mean[first], normalization.variance[first]]).toEqual([0, 0]);
  for (const data of [normalization.scale, normalization.bias]) {
    expect(Number.isFinite(data[first])).toBe(true);
  }
});
