import { expect, test } from "vitest";
import { gainsOf, type NormalSums, solveNormal, spreadOf } from "./least-squares.ts";
import { Random } from "./random.ts";

const random = new Random(1);
const truth = [
  [2, -1, 0.5],
  [0, 3, 1],
];
const offsets = [4, -2];

/** Sums over `n` observations of `truth` and `offsets`; the last regressor may repeat the first. */
function sumsOf(n: number, constants: readonly number[], repeat = false): NormalSums {
  const [xx, xe] = [new Float64Array(9), new Float64Array(6)];
  const [x, e] = [new Float64Array(3), new Float64Array(2)];
  for (let i = 0; i < n; i++) {
    const seen = [random.normal() + 1, random.normal(), random.normal()];
    if (repeat) seen[2] = seen[0];
    const errors = truth.map(
      (row, r) => row.reduce((sum, w, k) => sum + w * seen[k], 0) + constants[r],
    );
    seen.forEach((a, k) => {
      x[k] += a;
      seen.forEach((b, l) => {
        xx[3 * k + l] += a * b;
      });
      errors.forEach((b, r) => {
        xe[2 * k + r] += a * b;
      });
    });
    errors.forEach((b, r) => {
      e[r] += b;
    });
  }
  return { observations: n, xx, xe, x, e };
}

test("weights and constants are found", () => {
  const { weight, constant } = solveNormal(sumsOf(200, offsets), 1e-9, true);
  truth.flat().forEach((w, i) => {
    expect(weight[i]).toBeCloseTo(w, 4);
  });
  offsets.forEach((c, r) => {
    expect(constant[r]).toBeCloseTo(c, 4);
  });
});

test("without a constant, none is given", () => {
  const { weight, constant } = solveNormal(sumsOf(200, [0, 0]), 1e-9, false);
  truth.flat().forEach((w, i) => {
    expect(weight[i]).toBeCloseTo(w, 4);
  });
  expect([...constant]).toEqual([0, 0]);
});

test("regressors that are the same share a weight", () => {
  const { weight } = solveNormal(sumsOf(200, offsets, true), 1e-6, true);
  expect(weight[0]).toBeCloseTo(1.25, 3);
  expect(weight[2]).toBeCloseTo(1.25, 3);
});

test("without any regressor that varies, weights are zero and constants the means", () => {
  const sums = {
    observations: 10,
    xx: new Float64Array(4),
    xe: new Float64Array(2),
    x: new Float64Array(2),
    e: Float64Array.of(30),
  };
  expect(solveNormal(sums, 1e-3, true)).toEqual({
    weight: new Float64Array(2),
    constant: Float64Array.of(3),
  });
});

/** `x` added to itself in float32: one by one, which is always wrong to the same side, or at once. */
function sumOf(x: number, count: number, oneByOne: boolean): number {
  if (!oneByOne) return Math.fround(count * x);
  const rounded = Math.fround(x);
  let total = 0;
  for (let n = 0; n < count; n++) total = Math.fround(total + rounded);
  return total;
}

test.each([
  [64, false],
  [64, true],
  [1024, true],
])(
  "regressors that never vary leave finite weights, though sums of %i were rounded (one by one: %s)",
  (observations, oneByOne) => {
    const sums = (numbers: number[]) =>
      Float64Array.from(numbers, (x) => sumOf(x, observations, oneByOne));
    for (let seed = 0; seed < 200; seed++) {
      const draw = new Random(seed);
      // Of one value, which all regressors have: a channel that is always at its limit.
      const value = draw.normal();
      const seen = Array.from({ length: 9 }, () => value);
      const errors = Array.from({ length: 2 }, () => draw.normal());
      const products = (others: number[]) => sums(seen.flatMap((a) => others.map((b) => a * b)));
      const { weight, constant } = solveNormal(
        { observations, xx: products(seen), xe: products(errors), x: sums(seen), e: sums(errors) },
        1e-3,
        true,
      );
      errors.forEach((error, r) => {
        const made = seen.reduce((sum, a, i) => sum + weight[9 * r + i] * a, constant[r]);
        expect(Math.abs(made - error)).toBeLessThan(1e-3 * Math.max(1, Math.abs(error)));
      });
    }
  },
);

test("gains make rows vary as much as their targets", () => {
  const sums = sumsOf(200, offsets);
  const squares = truth.map((row, r) => {
    const [w, mean] = [row, sums.e[r] / 200];
    const product = w.reduce(
      (total, a, i) => total + w.reduce((t, b, j) => t + a * b * sums.xx[3 * i + j], 0),
      0,
    );
    const linear = w.reduce((total, a, i) => total + a * sums.x[i], 0);
    expect(mean).toBeCloseTo(linear / 200 + offsets[r], 6);
    return product + 2 * offsets[r] * linear + 200 * offsets[r] ** 2;
  });
  const targets = { y: sums.e, yy: Float64Array.from(squares) };
  const halved = truth.flat().map((w, i) => (i < 3 ? w / 2 : w));
  const gains = gainsOf(spreadOf(halved, sums), targets, 200);
  expect(gains[0]).toBeCloseTo(2, 6);
  expect(gains[1]).toBeCloseTo(1, 6);
  const nothing = spreadOf(new Float64Array(6), sums);
  expect(gainsOf(nothing, targets, 200)).toEqual(Float64Array.of(1, 1));
});
