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
  /** Matthews' correlation, which is Pearson's of two classes; 0 where one side does not vary. */
  matthews: (predictions: Numbers, labels: Numbers) => pearson(predictions, labels) || 0,
  pearson,
  spearman,
} as const;

export type Measure = keyof typeof measures;

export const measureNames = Object.keys(measures) as Measure[];
