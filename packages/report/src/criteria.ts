/** @file What models are judged by, and how it is written. */
import { formatChange, formatCount, formatPercent, formatShare, signed } from "./format.ts";
import { type ModelDescription, predictsNumber } from "./read-run.ts";

export interface Criteria {
  readonly accuracy: {
    readonly name: string;
    /** The same within a sentence. */
    readonly plainName: string;
    /** As model hubs call it. */
    readonly type: string;
    format(value: number): string;
    /** At the end of a curve, and beside an axis. */
    formatLabel(value: number): string;
    formatTick(value: number): string;
    describeChange(before: number, after: number): string;
    /** Of a value on `count` test samples. */
    standardError(value: number, count: number): number;
    describeError(standardError: number): string;
    /** Of so many samples: "93.77 % of 10,000 test samples". */
    describe(value: number, count: number): string;
  };
  readonly loss: {
    readonly name: string;
    readonly plainName: string;
    readonly unit: string | undefined;
  };
}

const classification: Criteria = {
  accuracy: {
    name: "Accuracy",
    plainName: "accuracy",
    type: "accuracy",
    format: (share) => formatPercent(share),
    formatLabel: (share) => formatPercent(share, 1),
    formatTick: formatShare,
    describeChange: (before, after) => `${formatChange(100 * before, 100 * after, 2)} points`,
    standardError: (share, count) => Math.sqrt(Math.max(0, share * (1 - share)) / count),
    describeError: (error) => `± ${(100 * error).toFixed(2)} points`,
    describe: (share, count) => `${formatPercent(share)} of ${formatCount(count)} test samples`,
  },
  loss: { name: "Cross-entropy", plainName: "cross-entropy", unit: "nats" },
};

// `evaluate` gives the correlation where there are no classes to be right about.
const regression: Criteria = {
  accuracy: {
    name: "Pearson's correlation",
    plainName: "Pearson's correlation",
    type: "pearsonr",
    format: (correlation) => signed(correlation.toFixed(4)),
    formatLabel: (correlation) => signed(correlation.toFixed(3)),
    formatTick: (correlation) => signed(String(correlation)),
    describeChange: (before, after) => formatChange(before, after, 4),
    // Nearly, for many samples.
    standardError: (correlation, count) =>
      Math.max(0, 1 - correlation ** 2) / Math.sqrt(Math.max(1, count - 1)),
    describeError: (error) => `± ${error.toFixed(4)}`,
    describe: (correlation, count) =>
      `a correlation of ${signed(correlation.toFixed(4))} on ${formatCount(count)} test samples`,
  },
  loss: {
    name: "Half the mean squared error",
    plainName: "half the mean squared error",
    unit: undefined,
  },
};

/** What "accuracy" and "loss" are in a run, which predicts classes or a number. */
export function criteriaOf({
  model,
}: {
  readonly model: Pick<ModelDescription, "classes" | "details"> | undefined;
}): Criteria {
  return predictsNumber(model) ? regression : classification;
}
