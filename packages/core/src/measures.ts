/** @file Measures of how well predictions agree with labels, as GLUE uses them (arXiv 1804.07461). */
import { spearman } from "./spearman.ts";

type Numbers = ArrayLike<number>;

function shareOf(count: number, holds: (i: number) => boolean): number {
  let total = 0;
  for (let i = 0; i < count; i++) if (holds(i)) total++;
  return total / count;
}

/** Pearson's correlation, between -1 and 1; NaN where one side does not vary. */
function pearson(x: Numbers, y: Numbers): number {
  const mean = (values: Numbers) => Array.from(values).reduce((a, b) => a + b, 0) / values.length;
  const [mx, my] = [mean(x), mean(y)];
  let [xy, xx, yy] = [0, 0, 0];
  for (let i = 0; i < x.length; i++) {
    xy += (x[i] - mx) * (y[i] - my);
    xx += (x[i] - mx) ** 2;
    yy += (y[i] - my) ** 2;
  }
  return xy / Math.sqrt(xx * yy);
}

/**
 * Matthews' correlation of any number of classes (Gorodkin 2004, doi 10.1016/j.compbiolchem.2004.09.006,
 * equation 8); of two classes it is Pearson's. 0 where one side does not vary.
 */
function matthews(predictions: Numbers, labels: Numbers): number {
  const count = labels.length;
  const frequencies = (values: Numbers) => {
    const counts = new Map<number, number>();
    for (const value of Array.from(values)) counts.set(value, (counts.get(value) ?? 0) + 1);
    return counts;
  };
  const [predicted, actual] = [frequencies(predictions), frequencies(labels)];
  const product = (a: ReadonlyMap<number, number>, b: ReadonlyMap<number, number>) =>
    [...a].reduce((total, [value, n]) => total + n * (b.get(value) ?? 0), 0);
  const right = shareOf(count, (i) => predictions[i] === labels[i]) * count;
  const varies = (of: ReadonlyMap<number, number>) => count ** 2 - product(of, of);
  const scale = Math.sqrt(varies(predicted) * varies(actual));
  return scale === 0 ? 0 : (right * count - product(predicted, actual)) / scale;
}

/** Each takes predictions and labels. */
export const measures = {
  accuracy: (predictions: Numbers, labels: Numbers) =>
    shareOf(labels.length, (i) => predictions[i] === labels[i]),
  /** Of class 1: the harmonic mean of precision and recall; 0 where it is never predicted rightly. */
  f1: (predictions: Numbers, labels: Numbers) => {
    const right = shareOf(labels.length, (i) => predictions[i] === 1 && labels[i] === 1);
    const predicted = shareOf(labels.length, (i) => predictions[i] === 1);
    const actual = shareOf(labels.length, (i) => labels[i] === 1);
    return right === 0 ? 0 : (2 * right) / (predicted + actual);
  },
  matthews,
  pearson,
  spearman,
} as const;

export type Measure = keyof typeof measures;

export const measureNames = Object.keys(measures) as Measure[];
