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
