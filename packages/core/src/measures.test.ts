import { expect, test } from "vitest";
import { measures } from "./measures.ts";

// 3 true positives, 1 false positive, 2 false negatives, 4 true negatives.
const predictions = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0];
const labels = [1, 1, 1, 0, 1, 1, 0, 0, 0, 0];

test("measures of two classes are those of their confusion matrix", () => {
  expect(measures.accuracy(predictions, labels)).toBeCloseTo(0.7);
  expect(measures.f1(predictions, labels)).toBeCloseTo((2 * 3) / (2 * 3 + 1 + 2));
  expect(measures.matthews(predictions, labels)).toBeCloseTo(
    (3 * 4 - 1 * 2) / Math.sqrt((3 + 1) * (3 + 2) * (4 + 1) * (4 + 2)),
  );
});

test("Matthews' correlation of three classes", () => {
  // Its definition, as the covariance of indicators.
  const [x, y] = [
    [0, 1, 2, 2, 1, 0, 1],
    [0, 1, 2, 1, 1, 2, 0],
  ];
  const covariance = (a: readonly number[], b: readonly number[]) =>
    [0, 1, 2].reduce((total, k) => {
      const [p, q] = [a, b].map((values) => values.map((value) => Number(value === k)));
      const mean = (values: readonly number[]) => values.reduce((s, v) => s + v, 0) / values.length;
      return total + mean(p.map((v, i) => v * q[i])) - mean(p) * mean(q);
    }, 0);
  expect(measures.matthews(x, y)).toBeCloseTo(
    covariance(x, y) / Math.sqrt(covariance(x, x) * covariance(y, y)),
  );
  // The names of classes do not matter.
  const renamed = (values: readonly number[]) => values.map((value) => [7, -1, 3][value]);
  expect(measures.matthews(renamed(x), renamed(y))).toBeCloseTo(measures.matthews(x, y));
});

test("predictions that do not vary agree with nothing", () => {
  expect(measures.matthews([1, 1, 1], [1, 0, 1])).toBe(0);
  expect(measures.f1([0, 0, 0], [1, 0, 1])).toBe(0);
  expect(measures.pearson([1, 1, 1], [1, 2, 3])).toBeNaN();
});

test("correlations of numbers: Pearson's is of values, Spearman's of ranks", () => {
  expect(measures.pearson([1, 2, 3], [3, 5, 7])).toBeCloseTo(1);
  expect(measures.pearson([1, 2, 9], [1, 2, 3])).toBeCloseTo(0.9177, 4);
  expect(measures.spearman([1, 2, 9], [1, 2, 3])).toBeCloseTo(1);
});
